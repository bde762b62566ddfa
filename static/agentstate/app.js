/* Live runs, keys, copying. It can do nothing that links and buttons of the page cannot. */
(() => {
  "use strict";
  const doc = document, root = doc.documentElement, $ = (s) => doc.querySelector(s);
  root.classList.add("js");

  // The stream says that something happened; the page's address gives the new parts.
  let stream, timer, busy, again;
  const line = () => $("[data-live]");
  const refresh = async () => {
    const el = line(), d = el && el.dataset;
    if (!el || doc.hidden) return;
    if (busy) { again = true; return; }
    busy = true;
    const end = d.end && innerHeight + scrollY > root.scrollHeight - 160 ? 1 : "";
    const url = d.page + (d.page.includes("?") ? "&" : "?") + new URLSearchParams({live: d.seen, rows: d.rows, since: d.since, end});
    try {
      await htmx.ajax("GET", url, {target: el, swap: "outerHTML"});
      if (end && scrollY) scrollTo(0, root.scrollHeight);
    } finally { busy = false; }
    if (again) { again = false; soon(); }
  };
  const soon = () => { clearTimeout(timer); timer = setTimeout(refresh, 150); };
  const listen = () => {
    const el = line();
    if (!el || stream || el.dataset.over) return;
    stream = new EventSource(el.dataset.live + "?after=" + el.dataset.seen);
    stream.addEventListener("run", soon);
    stream.addEventListener("over", () => stream.close());
  };
  doc.addEventListener("visibilitychange", () => { if (!doc.hidden && stream) soon(); });
  addEventListener("pagehide", () => stream && stream.close());

  // Nobody asked for it: what is shown stays, and a little later it is asked for again.
  doc.addEventListener("htmx:beforeSwap", ({detail: d}) => {
    if (d.xhr.status < 500 || d.requestConfig.triggeringEvent) return;
    d.shouldSwap = d.isError = false;
    clearTimeout(timer);
    timer = setTimeout(refresh, 3000);
  });

  const dress = (el) => {
    el.querySelectorAll("[data-copy][hidden]").forEach((b) => { b.hidden = false; });
    listen();
  };
  const shut = (but) => doc.querySelectorAll("details.menu[open]").forEach((m) => { if (m !== but) m.open = false; });
  doc.addEventListener("click", async (e) => {
    shut(e.target.closest("details.menu"));
    const b = e.target.closest("[data-copy]");
    if (!b) return;
    await navigator.clipboard.writeText(b.dataset.copy);
    b.textContent = "copied";
  });

  // data-key="g n": the key of a link or field; j and k walk rows. No key sends a form.
  let first = "";
  const walk = (step) => {
    const all = [...doc.querySelectorAll("main a.go")], at = all.indexOf(doc.activeElement);
    const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step];
    if (next) next.focus();
  };
  doc.addEventListener("keydown", (e) => {
    if (e.key === "Escape") shut();
    if (root.dataset.shortcuts === "off" || e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, select, textarea")) return;
    if (!first && /^[jk]$/.test(e.key)) return walk(e.key === "j" ? 1 : -1);
    const keys = first ? first + " " + e.key : e.key;
    first = e.key === "g" ? "g" : "";
    const el = [...doc.querySelectorAll("[data-key]")].find((x) => x.dataset.key === keys);
    if (!el) return;
    e.preventDefault();
    if (el.matches("a")) el.click(); else el.focus();
  });

  doc.addEventListener("DOMContentLoaded", () => dress(doc));
  doc.addEventListener("htmx:load", (e) => dress(e.detail.elt));
})();
