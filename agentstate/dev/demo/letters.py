"""The letters of the scripted model: one text per language and outcome."""

from __future__ import annotations

from typing import Any

Json = Any  # what json.loads gives

GREETINGS = {
    "en": "Dear {name},",
    "de": "Guten Tag {name},",
    "fr": "Bonjour {name},",
    "es": "Hola {name}:",
    "nl": "Beste {name},",
}
CLOSINGS = {
    "en": "Kind regards\nThe shop",
    "de": "Mit freundlichen Grüßen\nIhr Laden",
    "fr": "Cordialement\nVotre boutique",
    "es": "Un saludo\nLa tienda",
    "nl": "Met vriendelijke groet\nDe winkel",
}
BODIES = {
    "refunded": {
        "en": "we have refunded €{amount} for your order {order}. It reaches your account within three working days.",
        "de": "wir haben Ihnen {amount} € für Ihre Bestellung {order} erstattet. Er ist in drei Werktagen da.",
        "fr": "nous vous avons remboursé {amount} € pour votre commande {order}. Il arrivera sous trois jours.",
        "es": "le hemos reembolsado {amount} € por su pedido {order}. Lo recibirá en tres días laborables.",
        "nl": "we hebben € {amount} voor uw bestelling {order} terugbetaald. Het komt binnen drie werkdagen.",
    },
    "declined": {
        "en": "we have looked at your order {order} and cannot refund it. {reason}",
        "de": "wir haben Ihre Bestellung {order} geprüft und können sie nicht erstatten. {reason}",
        "fr": "nous avons examiné votre commande {order} et ne pouvons pas la rembourser. {reason}",
        "es": "hemos revisado su pedido {order} y no podemos reembolsarlo. {reason}",
        "nl": "we hebben uw bestelling {order} bekeken en kunnen deze niet terugbetalen. {reason}",
    },
    "answered": {
        "en": "thank you for writing. We have passed this on to the person in charge. {reason}",
        "de": "danke für Ihre Nachricht. Wir haben sie an die zuständige Person weitergegeben. {reason}",
        "fr": "merci pour votre message. Nous l'avons transmis à la personne responsable. {reason}",
        "es": "gracias por su mensaje. Lo hemos pasado a la persona responsable. {reason}",
        "nl": "dank voor uw bericht. We hebben het doorgegeven aan wie erover gaat. {reason}",
    },
}
REMEMBERED = {
    "en": "For your records, this is what we keep about you: {known}",
    "de": "Zu Ihrer Kenntnis, das haben wir uns gemerkt: {known}",
    "fr": "Pour information, voici ce que nous avons noté : {known}",
    "es": "Para su información, esto es lo que tenemos anotado: {known}",
    "nl": "Ter informatie, dit hebben wij onthouden: {known}",
}
ASKED_FOR = {
    f"our mail in {language}": code
    for code, language in {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "nl": "Dutch"}.items()
}


def write(asked: Json) -> Json:
    """`asked`: outcome, name, language, subject, order, amount, reason, known (what is remembered, a list)."""
    known = asked.get("known") or []
    language = language_of(known) or asked["language"]
    said = {name: asked.get(name) or "" for name in ("name", "order", "amount", "reason")}
    parts = [GREETINGS[language], BODIES[asked["outcome"]][language], CLOSINGS[language]]
    written = [part.format(**said).strip() for part in parts]
    if known:
        written.insert(2, REMEMBERED[language].format(known=" ".join(known)))
    text = "\n\n".join(written)
    return {"subject": f"Re: {asked['subject']}"[:200], "text": text}


def language_of(known: list[str]) -> str:
    """The language the customer has asked for; the newest wish stands last."""
    wishes = [code for line in known for wish, code in ASKED_FOR.items() if wish in line]
    return wishes[-1] if wishes else ""
