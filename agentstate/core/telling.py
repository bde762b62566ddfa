"""Words of telling: what somebody says around a statement when it is told again, and nothing of which is news itself.

They count in a part of a sentence that has no other words ("according to my notes,"), never inside a statement.
Words that turn a statement round, bind it or name somebody else stand in no list here.
"""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What a person does who says or said something.
SAYING = _words("""
    write wrote written
    tell told say said mention state note share indicate express report describe explain clarify specify declare
    announce remark comment confirm reiterate repeat stress emphasise emphasize underline insist maintain assert
    affirm reaffirm reveal disclose confide hint imply signal agree acknowledge recall remember remind recollect
    know knew known inform advise put discuss talk speak spoke spoken chat meet phrase add point
    clear suggest
""")

# What is done with what was said: knowing, keeping, finding, showing; and what an assistant says it does next.
VERBS = _words("""
    tell told say said mention state note share inform indicate express report describe explain clarify specify
    declare announce claim advise suggest recommend propose remark comment reply answer respond ask confirm verify
    check double validate acknowledge agree establish determine conclude infer deduce assume presume suppose believe
    think guess reckon consider regard treat take taken taking view see saw seen seeing look sound seem appear hear
    heard read know knew known recall remember remind recollect recognise recognize realise realize understand
    understood grasp gather learn learnt find found discover notice observe spot store save keep kept hold held
    retain memorise memorize record log document file register list write wrote written jot capture collect retrieve
    fetch pull bring brought surface load match fit align correspond reflect show shown display reveal prove
    demonstrate point highlight stress emphasise emphasize underline repeat reiterate restate rephrase recap
    recapitulate summarise summarize sum wrap begin proceed continue go come came get got make made let ensure try
    help assist act adapt adjust tailor personalise personalize skip prepare respect honour honor forget mistaken
    bear serve worry meet speak spoke spoken talk discuss touch cover provide give gave given set refer
    cite quote extract derive define add supply submit pick draw assure rest spare recite relay convey raise allow
    permit appreciate mean recount echo assert attest flag pin tag label mark catalogue archive cache possess carry
    comprise contain include consist enclose attach outline sketch judge deem figure gauge sense catch caught track
    dig dug search query scan consult review revisit refresh recheck accommodate incorporate integrate factor abide
    comply stick stuck update amend sync populate default remain stay stand apply persist reference hope
    compile assemble put reading run walk tie
""")

# Where it stands, and what it is called there.
NOUNS = _words("""
    mind hand accordance compliance keeping line agreement view light accord
    memory memories note record file profile account entry fact detail information info knowledge preference setting
    context background history conversation chat session message exchange interaction discussion dialogue dialog
    time turn summary recap overview list bullet point reminder insight persona situation case picture page
    reference source confidence score rank relevance probability certainty level accuracy system crm transcript
    storage bank head answer response question statement assumption understanding impression conclusion update thing
    something everything anything bit part side word term line section key value subject topic user customer client
    person assistant agent bot ai model self tl dr tldr ps fyi nb btw course fact-check knowledgebase base
    recollection observation instruction prompt stuff rundown recapitulation gist bottom short brief result finding
    remark heart data dataset graph node snippet passage chunk document doc paragraph vector embedding index hit
    retrieval lookup search output input payload json yaml xml string text content body title heading header field
    attribute property variable parameter config configuration option requirement habit trait characteristic feature
    bio biography dossier folder binder notebook notepad logbook ledger registry archive cache database table row
    column sheet spreadsheet cell sticky pin label tag category type kind class group namespace scope block window
    version revision timestamp date id uuid team staff department support occasion moment backlog eye track
    correspondence thread chart wish ground
""")

# What we do for the person: a promise, or a fact about what was done.
PROMISED = _words("""
    send sent pay paid return call called deliver ship shipped refund replace fix repair cancel book transfer order
    charge credit visit sign issue upload buy bought sell sold promise owe install pack post mail block open close
""")

# Names of fields: before a statement ("Languages: German"), never behind one.
LABELS = _words("""
    language payment contact address residence home location job occupation profession pet diet allergy allergies
    budget delivery order refund appointment hobby project birthday phone mail
""")

# Where something stands that was told before.
RECORDS = _words("""
    memory memories note record file profile history conversation chat session message transcript log crm database
    system recollection knowledge context notes records database dossier ledger archive summary recap
""")

# Of these, words that tell nothing by themselves: "half time" is no telling.
VAGUE = _words("""
    time turn part side thing bit word line section date moment occasion day type kind class group number
""")

# What is said behind a statement about itself: "... is already stored".
KEPT = _words("""
    something
    store stored note noted record recorded file memory known document documented log logged save saved register
    registered remember remembered listed notes records profile
""")

# How, when, how sure; and courtesies.
MANNER = _words("""
    after once way nutshell avoid misunderstanding confusion
    ago away
    welcome thank change changed unchanged
    already again always still ever before previously earlier beforehand recently lately once just simply basically
    essentially actually really indeed certainly definitely surely absolutely exactly precisely correctly right
    clearly obviously apparently evidently presumably probably likely possibly perhaps maybe naturally overall
    altogether generally specifically namely particularly especially mainly also too well likewise similarly
    accordingly therefore thus hence consequently so then now far here there above below following next finally
    lastly briefly shortly quick quickly more anew straight fully aware duly happy glad pleased nice good great
    perfect fine excellent wonderful lovely brilliant cool sure okay ok yes yeah yep hi hello hey dear sorry please
    thanks kindly main important relevant existing available known given aforementioned previous prior last past
    recent current own long short same other brief fair true correct accurate safe certain familiar high medium low
    top back away ahead better all whole helpful useful handy worth along regardless anyway incidentally alright
    gladly both mutual matter anyhow nonetheless meanwhile moreover furthermore additionally besides plus firstly
    secondly thereby hereby ultimately technically seemingly reportedly frankly honestly truly literally crucially
    notably significantly interestingly fortunately luckily happily plainly undoubtedly doubtless unquestionably
    needless verbatim roughly explicitly implicitly expressly personally directly repeatedly consistently
    continually constantly frequently regularly currently presently nowadays present date aha ah oh hmm um wow
    gotcha roger alrighty noted copy affirmative agreed fantastic awesome splendid marvellous terrific super cheers
    greetings sir madam permanent durable quickest simple relevantly pertinent applicable internal personal
    confidential extra additional various several few new latest newest oldest first-hand official formal informal
    automatic automatically manual fresh old
""")

GRAMMAR = _words("""
    unless something
    i me my mine we us our ours you your yours he him his she her hers they them their theirs it its this that these
    those who whom whose which what when where how if whether because since as although though while and or but for
    to from of on onto in into at by with within about between among during per via through over up down out off
    like than am is are was were be been being have has had having do does did doing will would shall should can
    could may might must ought there's here's that's it's i'm i've i'll i'd you're you've you'd you'll we've we'll
    we're let's what's one some any each every a an the not-only re
""")

# Telling in other languages: a statement in them is framed in them.
OTHER_LANGUAGES = _words("""
    wenn recht según recuerdo
    wie du sie ihr ihre dir ihnen ich mir mich meine meinen meiner sagtest sagten gesagt hast haben erwähnt
    erwähntest erwähnten laut notizen unterlagen weiß weiss erinnere erinnern dass daran zufolge zur erinnerung kurz
    zusammengefasst zusammenfassung bekannt notiert merke gemerkt bereits schon früher vorhin zuvor also ja richtig
    genau verstanden gespeichert gedächtnis hinweis übrigens bestätigt comme vous tu avez as l'avez l'as m'avez m'as
    dit mentionné indiqué selon mes notes je me souviens rappelle rappel pour noté sais d'après mémoire résumé en
    bref déjà oui exactement enregistré compris donc que qu'il como usted dijiste dijo mencionó mencionaste según
    mis notas recuerdo acuerdo ya anotado sé memoria resumen breve sí exacto guardado entendido entonces come lei
    hai ha detto menzionato secondo le mie ricordo mi già annotato so riassunto sì esatto salvato capito dunque che
    zoals jij u zei zeiden vertelde verteld volgens mijn notities ik herinner weet onthouden al genoteerd geheugen
    samengevat kortom juist opgeslagen begrepen dus dat você disse mencionou segundo minhas lembro já sei memória
    resumo sim exato salvo então
""")

WORDS = SAYING | VERBS | NOUNS | MANNER | GRAMMAR | OTHER_LANGUAGES
TELLS = (
    VERBS | NOUNS
)  # beside one of these a number counts or dates the telling: "fact 7 of 12", "on 2026-03-04 you said"

# Denials that assert: they deny a doubt, or ask for a yes.
ASSERTING = re.compile(
    r"\b(?:did|do|does|is|are|was|were|have|has|had|would|can|could)(?:n['’]t| not)\s+(?:you|it|that|this|we|i|they)\b"
    r"|\b(?:wo|do|ca|must|should|would|could|did)(?:n['’]t| not)\s+(?:\w+\s+)?(?:forget|worry|mind|doubt|need|ask)\b"
    r"|\b(?:has|have)(?:n['’]t| not) changed\b|\b(?:got|have|had|get) (?:\w+ ){0,2}wrong\b"
    r"|\b(?:you|they|she|he) (?:\w+ )?(?:want|wanted|asked|told|told|would like) (?:me|us) to\b"
    r"|\b(?:will|let us|let['’]s|i|to|have|has|can|may)\s+not\s+(?:forget|forgotten|worry|doubt|mention|overlook)\b"
    r"|\b(?:i|we)(?:['’]ve| have)(?:n['’]t| not) forgotten\b|\b(?:have|has)n['’]t forgotten\b|\bcannot forget\b"
    r"|\bno (?:changes?|updates?|need|doubt|problem|worries|wonder|question|mistake)\b"
    r"|\bwithout (?:saying|doubt|question)\b"
    r"|\bnot (?:mistaken|wrong)\b|\bnot only\b|\bnot to (?:forget|mention)\b|\bnever forget\b"
    r"|\b(?:unless|if|when) i(?:['’]m| am) (?:mistaken|wrong)\b",
    re.IGNORECASE,
)
GOING_ON = re.compile(r"\s*(?:(?:so|and|then|thus|therefore)\s+)?(?:I|we)(?:['’]ll|['’]d|['’]m|\s+\w)", re.IGNORECASE)
GREETING = re.compile(r"\bgood (?:morning|afternoon|evening|day)\b", re.IGNORECASE)
