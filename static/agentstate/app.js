/* Our own script: live runs, keys, copying. It follows the links and buttons of the page and can do nothing they cannot. */
(() => {
  "use strict";
  const $ = (what) => document.querySelector(what);
  const at = (el) => el.dataset;

  // A run that is going on: the stream only says "something happened"; the page's own address gives the new parts.
  let stream, timer, busy;
  const line = () => $("[data-live]");
  const atEnd = () => innerHeight + scrollY > document.documentElement.scrollHeight - 160;
  const refresh = async () => {
    const el = line();
    if (!el || busy || document.hidden) return;
    busy = true;
    const end = at(el).end === "1" && atEnd() ? "1" : "";
    const sign = at(el).page.includes("?") ? "&" : "?";
    try {
      await htmx.ajax("GET", at(el).page + sign + "live=" + at(el).seen + "&rows=" + at(el).rows + "&end=" + end, {source: el, target: el, swap: "outerHTML"});
      if (end) scrollTo(0, document.documentElement.scrollHeight);
    } finally { busy = false; }
    if (line() && at(line()).over === "1" && stream) { stream.close(); stream = null; }
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(refresh, 200); };
  const listen = () => {
    const el = line();
    if (!el || stream || at(el).over === "1") return;
    stream = new EventSource(at(el).live + "?after=" + at(el).seen);
    stream.addEventListener("run", soon);
  };
  document.addEventListener("visibilitychange", () => document.hidden || soon());
  addEventListener("pagehide", () => stream && stream.close());

  // Copy buttons exist only with a script; without it the text can be selected.
  const unhide = (root) => root.querySelectorAll("button[data-copy][hidden]").forEach((b) => { b.hidden = false; });
  document.addEventListener("click", async (e) => {
    const b = e.target.closest("[data-copy]");
    if (!b) return;
    await navigator.clipboard.writeText(at(b).copy);
    const was = b.textContent; b.textContent = "copied"; setTimeout(() => { b.textContent = was; }, 1500);
  });

  // Open menus close on Escape and on a click elsewhere.
  const menus = (except) => document.querySelectorAll("details.menu[open]").forEach((m) => { if (m !== except) m.open = false; });
  document.addEventListener("click", (e) => menus(e.target.closest("details.menu")));

  // Keys: data-key="g n" on a link, button or field. None of them submits a form.
  let first = "";
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape") menus();
    if (document.documentElement.dataset.shortcuts === "off" || e.ctrlKey || e.metaKey || e.altKey) return;
    if (e.target.closest("input, select, textarea, [contenteditable]")) return;
    if (e.key === "j" || e.key === "k") return row(e.key === "j" ? 1 : -1);
    const pressed = first ? first + " " + e.key : e.key;
    first = e.key === "g" ? "g" : "";
    const el = $('[data-key="' + CSS.escape(pressed).replace(/\\/g, "") + '"]');
    if (!el) return;
    e.preventDefault();
    if (el.matches("a[href]")) el.click(); else if (el.matches("summary")) el.click(); else el.focus();
  });
  const row = (step) => {
    const all = [...document.querySelectorAll("main a.go")];
    const now = all.indexOf(document.activeElement);
    const next = all[now < 0 ? (step > 0 ? 0 : all.length - 1) : now + step];
    if (next) next.focus();
  };

  const ready = () => { unhide(document); listen(); };
  document.addEventListener("htmx:load", (e) => { unhide(e.detail.elt); listen(); });
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", ready); else ready();
})();
