"""How a person says a name, a preference, an allergy, how to be reached, an order or a promise in six languages.

One row per language beside English; rules reads them. `doubted` are words that make it a condition, a wish or an
example, `negated` a denial. A statement is kept in the language in which it was said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrases:
    """Patterns without case, but for the name that follows `name`; `kept_*` say where it goes.

    `contact` and `prefers_channel` hold CHANNEL where one of `channels` stands; a number follows `order`; what
    `promise` matches is the promise itself. `own`: words that tell the language from one that shares its verbs.
    """

    name: str
    prefers: str
    allergic: str
    contact: str
    prefers_channel: str
    order: str
    promise: str
    negated: str
    doubted: str
    own: str
    channels: Mapping[str, str]  # word -> email, phone, post, chat
    called: Mapping[str, str]  # and how each of these is called
    kept_name: str
    kept_prefers: str
    kept_allergic: str
    kept_contact: str
    kept_no_contact: str
    kept_order: str
    kept_ours: str
    kept_theirs: str


CHANNEL = "CHANNEL"
REST = r"[^.!?\n]{3,120}"  # of a sentence, behind the verb of a promise
# Where the verb stands last: no other clause comes between.
MIDDLE = r"(?:(?!\b(?:und|oder|ob|dass|en|of|dat)\b)[^.,;:!?\n]){2,120}?"
EVERYWHERE = {
    **dict.fromkeys(["email", "e-mail", "mail"], "email"),
    "sms": "phone",
    **dict.fromkeys(["chat", "whatsapp"], "chat"),
}

PHRASES = {
    "de": Phrases(
        name=r"ich hei(?:ß|ss)e|mein name ist",
        prefers=r"ich bevorzuge(?: immer)?",
        allergic=r"ich bin (?:\w+ )?allergisch (?:gegen|auf)",
        contact=(
            r"(?:kontaktier(?:en sie|t|e)|erreich(?:en sie|t|e)|schreib(?:en sie|t|e)?|antwort(?:en sie|et|e)"
            r"|benachrichtig(?:en sie|t|e)) (?:mich|mir)"
            r"(?: bitte| nur| nicht| nie| am besten| lieber| immer| mehr){0,3} (?:per|via|über) CHANNEL"
            r"|bitte(?: nur| nicht| lieber| immer| nie| mehr){0,2} (?:per|via|über) CHANNEL"
            r" (?:kontaktieren|schreiben|antworten|benachrichtigen)"
            r"|ich möchte(?: nur| nicht| lieber| bitte| immer){0,2} (?:per|via|über) CHANNEL kontaktiert werden"
        ),
        prefers_channel=(
            r"ich bevorzuge(?: immer)?(?: den)?(?: kontakt)?(?: (?:per|via|über))?(?: das| die| den)? CHANNEL"
        ),
        order=(
            r"(?:bestellung|bestell-?nummer|bestell-?nr\.?|auftrag|auftragsnummer)(?: (?:nummer"
            r"|nr\.?))?(?: (?:ist|lautet))?"
        ),
        promise=(
            rf"(?:ich werde|wir werden) {MIDDLE}(?:senden|schicken|zahlen|bezahlen|überweisen|zurückgeben|anrufen"
            r"|zurückrufen|antworten|melden|liefern|erstatten|ersetzen|reparieren|prüfen|stornieren|buchen|bestätigen"
            r"|unterschreiben|ausstellen|hochladen|nachreichen|bescheid geben)(?=\s*(?:[.,;!]|und\b|$))"
            rf"|(?:ich verspreche|wir versprechen),? {REST}"
        ),
        negated=r"nicht|nie|niemals|nimmer|kein\w*",
        doubted=r"wenn|falls|vielleicht|würde|könnte|möglicherweise|angenommen|zum beispiel",
        own=r"ich|wir|der|die|das|und",
        channels={**EVERYWHERE, "telefon": "phone", "handy": "phone", "post": "post", "brief": "post"},
        called={"email": "E-Mail", "phone": "Telefon", "post": "Post", "chat": "Chat"},
        kept_name="Heißt {}.",
        kept_prefers="Bevorzugt {}.",
        kept_allergic="Ist allergisch gegen {}.",
        kept_contact="Möchte per {} kontaktiert werden.",
        kept_no_contact="Möchte nicht per {} kontaktiert werden.",
        kept_order="Hat die Bestellung {}.",
        kept_ours="Unsere Zusage: {}.",
        kept_theirs="Hat zugesagt: {}.",
    ),
    "fr": Phrases(
        name=r"je m['’]appelle|mon nom est",
        prefers=r"je préfère(?: toujours)?",
        allergic=r"je suis allergique (?:aux|au|à la|à l['’]|à)",
        contact=(
            r"(?:contacte[zr]?|joigne[zr]|joins|appele[zr]|appelle|écrive[zr]|écris|réponde[zr]|réponds)[- ]moi"
            r"(?: plutôt| uniquement| seulement| toujours| s['’]il vous plaît){0,2} (?:par|via|sur)(?: le| la)? CHANNEL"
            r"|ne (?:me |m['’])(?:contacte[zr]?|joigne[zr]|appele[zr]|appelle|écrive[zr]|écris)"
            r"(?: pas| plus| jamais){1,2} (?:par|via|sur)(?: le| la)? CHANNEL"
            r"|(?:merci de|veuillez|prière de) (?:me |m['’])(?:contacter|joindre|écrire|répondre|appeler)"
            r"(?: plutôt| uniquement| seulement)? (?:par|via|sur)(?: le| la)? CHANNEL"
            r"|je (?:souhaite|veux) être contactée?(?: uniquement| seulement)? (?:par|via) CHANNEL"
        ),
        prefers_channel=(
            r"je préfère(?: toujours)?(?: être (?:contactée?|jointe?))?(?: (?:par|via))?(?: le| la| les)?(?: "
            r"| l['’])CHANNEL"
        ),
        order=r"commande(?: (?:numéro|n°|nº|no\.?))?(?: est)?(?: le)?",
        promise=(
            r"(?:je|j['’]|nous) ?(?:(?:vous|te|le|la|les|lui) |(?:l|m)['’]){0,2}(?:enverr|rappeller|rembourser"
            r"|paier|payer|répondr"
            rf"|livrer|remplacer|vérifier|confirmer|retourner|réparer|annuler|signer|contacter)(?:ai|ons)(?!\w) {REST}"
            r"|(?:je vais|nous allons) (?:(?:vous|te|le|la|les|lui) |l['’]){0,2}(?:envoyer|rappeler|rembourser"
            r"|payer|répondre"
            rf"|livrer|remplacer|vérifier|confirmer|retourner|renvoyer|réparer|annuler|signer|contacter)(?!\w) {REST}"
            rf"|(?:je promets|nous promettons) d(?:e |['’]){REST}"
        ),
        negated=r"ne|n['’]\w+|pas|jamais|plus(?! tard| vite)",
        doubted=r"si|peut-être|pourrais|aimerais|imaginons|supposons|par exemple",
        own=r"je|nous|vous|le|les|et",
        channels={
            **EVERYWHERE,
            **dict.fromkeys(["courriel", "courrier électronique"], "email"),
            **dict.fromkeys(["téléphone", "texto"], "phone"),
            **dict.fromkeys(["courrier", "courrier postal", "lettre"], "post"),
        },
        called={"email": "e-mail", "phone": "téléphone", "post": "courrier", "chat": "chat"},
        kept_name="S'appelle {}.",
        kept_prefers="Préfère {}.",
        kept_allergic="Allergie : {}.",
        kept_contact="Souhaite un contact par {}.",
        kept_no_contact="Ne souhaite pas de contact par {}.",
        kept_order="A la commande {}.",
        kept_ours="Notre promesse : {}.",
        kept_theirs="A promis : {}.",
    ),
    "es": Phrases(
        name=r"me llamo|mi nombre es",
        prefers=r"(?:yo )?(?:siempre )?prefiero",
        allergic=r"soy alérgic[oa] (?:al|a los|a las|a la|a)",
        contact=(
            r"(?:contácte(?:n)?me|contáctame|contactadme|escríb[ae]me|escríbanme|llám[ae]me|llámenme|respónd[ae]me"
            r"|respóndanme|avís[ae]me)(?: solo| sólo| siempre| mejor| por favor){0,2} (?:por|vía)(?: el)? CHANNEL"
            r"|no me (?:contact(?:e|en|es)|llam(?:e|en|es)|escrib(?:a|an|as))(?: más| nunca| solo| sólo)? (?:por"
            r"|vía) CHANNEL"
            r"|(?:quiero|deseo) ser contactad[oa](?: solo| sólo)? (?:por|vía) CHANNEL"
        ),
        prefers_channel=(
            r"(?:yo )?(?:siempre )?prefiero(?: que me (?:contacten|llamen|escriban)"
            r"| ser contactad[oa])?(?: (?:por|vía))?"
            r"(?: el| la)? CHANNEL"
        ),
        order=r"pedido(?: (?:número|núm\.?|n[º°]))?(?: es)?(?: el)?",
        promise=(
            r"(?:(?:le|les|te|os|lo|la) )?(?:enviar|mandar|llamar|pagar|devolver|reembolsar|responder|entregar"
            r"|reemplazar"
            rf"|revisar|confirmar|cancelar|firmar|reparar)(?:é|emos)(?!\w) {REST}"
            r"|(?:voy|vamos) a (?:enviar|mandar|llamar|pagar|devolver|reembolsar|responder|entregar|reemplazar|revisar"
            rf"|confirmar|cancelar|firmar|reparar)(?:les?|te|os|lo|la)?(?!\w) {REST}"
            rf"|promet(?:o|emos) {REST}"
        ),
        negated=r"no|nunca|jamás",
        doubted=r"si|quizás?|tal vez|podría|supongamos|por ejemplo",
        own=r"el|los|las|del|una?|y|le|les|antes|mañana",
        channels={
            **EVERYWHERE,
            "correo electrónico": "email",
            **dict.fromkeys(["teléfono", "móvil"], "phone"),
            **dict.fromkeys(["correo postal", "carta"], "post"),
        },
        called={"email": "correo electrónico", "phone": "teléfono", "post": "correo postal", "chat": "chat"},
        kept_name="Se llama {}.",
        kept_prefers="Prefiere {}.",
        kept_allergic="Alergia: {}.",
        kept_contact="Quiere que se le contacte por {}.",
        kept_no_contact="No quiere que se le contacte por {}.",
        kept_order="Tiene el pedido {}.",
        kept_ours="Nuestra promesa: {}.",
        kept_theirs="Ha prometido: {}.",
    ),
    "it": Phrases(
        name=r"mi chiamo|il mio nome è",
        prefers=r"(?:io )?preferisco(?: sempre)?",
        allergic=r"sono allergic[oa] (?:alle|agli|alla|allo|ai|al|all['’]|a)",
        contact=(
            r"(?:contatta(?:te)?mi|contattarmi|mi contatti|non mi contattate|scrive(?:te)?mi|scrivimi|scrivermi"
            r"|mi scriva|chiama(?:te)?mi"
            r"|chiamarmi|mi chiami|risponde(?:te)?mi|rispondimi)(?: solo| sempre| pure| più| per favore){0,2}"
            r" (?:per|via|tramite)(?: il| la)? CHANNEL"
            r"|(?:voglio|desidero) essere contattat[oa](?: solo)? (?:per|via|tramite) CHANNEL"
        ),
        prefers_channel=(
            r"(?:io )?preferisco(?: sempre)?(?: essere contattat[oa])?(?: (?:per|via|tramite))?(?: il| la)?(?: "
            r"| l['’])CHANNEL"
        ),
        order=r"ordine(?: (?:numero|nr\.?|n[.°º]))?(?: è)?(?: il)?",
        promise=(
            r"(?:(?:le|vi|ti|lo|la) )?(?:invier|mander|chiamer|richiamer|pagher|restituir|rimborser|risponder"
            r"|consegner|sostituir"
            rf"|controller|confermer|spedir|firmer|annuller|riparer)(?:ò|emo)(?!\w) {REST}"
            rf"|(?:prometto|promettiamo) di {REST}"
        ),
        negated=r"non|mai",
        doubted=r"se|forse|potrei|supponiamo|per esempio",
        own=r"il|gli|della|e|di",
        channels={
            **EVERYWHERE,
            "posta elettronica": "email",
            **dict.fromkeys(["telefono", "cellulare"], "phone"),
            **dict.fromkeys(["posta", "lettera"], "post"),
        },
        called={"email": "e-mail", "phone": "telefono", "post": "posta", "chat": "chat"},
        kept_name="Si chiama {}.",
        kept_prefers="Preferisce {}.",
        kept_allergic="Allergia: {}.",
        kept_contact="Vuole un contatto per {}.",
        kept_no_contact="Non vuole un contatto per {}.",
        kept_order="Ha l'ordine {}.",
        kept_ours="Nostra promessa: {}.",
        kept_theirs="Ha promesso: {}.",
    ),
    "pt": Phrases(
        name=r"(?:eu )?me chamo|chamo-me|(?:o )?meu nome é",
        prefers=r"(?:eu )?(?:sempre )?prefiro",
        allergic=r"(?:eu )?sou alérgic[oa] (?:aos|às|ao|à|a)",
        contact=(
            r"(?:cont(?:ac?te|ac?tem)-me|entrem? em contac?to comigo|escrevam?-me|liguem?-me|respondam?-me"
            r"|(?:não|por favor,?) me (?:cont(?:ac?te|ac?tem)|escrevam?|liguem?))(?: só| apenas| sempre| somente"
            r"| mais| por favor){0,2}"
            r" (?:por|pelo|pela|via) CHANNEL"
            r"|quero ser contac?tad[oa](?: só| apenas)? (?:por|pelo|pela|via) CHANNEL"
        ),
        prefers_channel=(
            r"(?:eu )?(?:sempre )?prefiro(?: ser contac?tad[oa])?(?: (?:por|pelo|pela|via))?(?: o| a)? CHANNEL"
        ),
        order=r"(?:encomenda|(?:meu|do|o) pedido)(?: (?:número|nº|n°))?(?: é)?(?: o)?",
        promise=(
            r"(?:enviar|mandar|ligar|pagar|devolver|reembolsar|responder|entregar|substituir|verificar|confirmar"
            r"|cancelar|assinar"
            rf"|consertar|reparar)(?:ei|emos)(?!\w) {REST}"
            r"|(?:vou|vamos) (?:(?:lhe|lhes|te|vos) )?(?:enviar|mandar|ligar|pagar|devolver|reembolsar|responder"
            r"|entregar"
            rf"|substituir|verificar|confirmar|cancelar|assinar|reparar)(?:-(?:lhes?|te|vos))?(?!\w) {REST}"
            rf"|promet(?:o|emos) {REST}"
        ),
        negated=r"não|nunca|jamais",
        doubted=r"se|talvez|poderia|imagine|por exemplo",
        own=r"o|os|as|do|da|dos|das|um|uma|e|lhes?|até|amanhã|você|com|em|ao",
        channels={
            **EVERYWHERE,
            **dict.fromkeys(["correio eletrónico", "correio eletrônico"], "email"),
            **dict.fromkeys(["telefone", "telemóvel", "celular"], "phone"),
            **dict.fromkeys(["correio", "carta"], "post"),
        },
        called={"email": "e-mail", "phone": "telefone", "post": "correio", "chat": "chat"},
        kept_name="Chama-se {}.",
        kept_prefers="Prefere {}.",
        kept_allergic="Alergia: {}.",
        kept_contact="Quer contacto por {}.",
        kept_no_contact="Não quer contacto por {}.",
        kept_order="Tem a encomenda {}.",
        kept_ours="Nossa promessa: {}.",
        kept_theirs="Prometeu: {}.",
    ),
    "nl": Phrases(
        name=r"ik heet|mijn naam is",
        prefers=r"ik (?:verkies|prefereer)(?: altijd)?",
        allergic=r"ik ben allergisch voor",
        contact=(
            r"(?:contacteer|bereik|schrijf|bel|antwoord)(?: u)? (?:mij|me)(?: alstublieft| alleen| niet| liever"
            r"| altijd| nooit){0,2}"
            r" (?:via|per) (?:de )?CHANNEL"
            r"|neem(?:t u)?(?: alstublieft| alleen| niet| liever| altijd){0,2} (?:via"
            r"|per) (?:de )?CHANNEL contact met (?:mij|me) op"
            r"|neem(?:t u)?(?: alstublieft| alleen| niet| liever| altijd){0,2} contact met (?:mij|me) op (?:via"
            r"|per) (?:de )?CHANNEL"
        ),
        prefers_channel=r"ik (?:verkies|prefereer)(?: altijd)?(?: contact)?(?: (?:via|per))?(?: de)? CHANNEL",
        order=r"(?:bestelling(?:snummer)?|bestelnummer|ordernummer)(?: (?:nummer|nr\.?))?(?: is)?",
        promise=(
            rf"(?:ik zal|wij zullen|we zullen) {MIDDLE}(?:sturen|opsturen|betalen|terugbetalen|terugsturen|bellen"
            r"|terugbellen"
            r"|antwoorden|leveren|vergoeden|vervangen|controleren|bevestigen|annuleren|boeken|ondertekenen|repareren"
            r"|laten weten)(?!\w)"
            rf"|(?:ik beloof|wij beloven|we beloven) {REST}"
        ),
        negated=r"niet|nooit|geen",
        doubted=r"als|indien|misschien|zou|kan zijn|stel|bijvoorbeeld",
        own=r"ik|wij|de|het|een|en",
        channels={**EVERYWHERE, "telefoon": "phone", "post": "post", "brief": "post"},
        called={"email": "e-mail", "phone": "telefoon", "post": "post", "chat": "chat"},
        kept_name="Heet {}.",
        kept_prefers="Verkiest {}.",
        kept_allergic="Is allergisch voor {}.",
        kept_contact="Wil contact via {}.",
        kept_no_contact="Wil geen contact via {}.",
        kept_order="Heeft de bestelling {}.",
        kept_ours="Onze toezegging: {}.",
        kept_theirs="Heeft toegezegd: {}.",
    ),
}
