"""The tables of memory. Read and written by this tier only; all text in them is sealed with its owner's key."""

from memory.models.document import Progress, ProgressVersion, Prompt, PromptVersion
from memory.models.item import Item, ItemRevision, Proposal
from memory.models.ledger import Injection, RecallQuestion
from memory.models.receipt import Receipt
from memory.models.removed import Removed
from memory.models.session import Author, Message, Session, Summary
from memory.models.subject import Alias, OwnerKey, Subject
from memory.models.unit import Unit, UnitStaged, UnitTokens
from memory.models.upkeep import Upkeep

__all__ = [
    "Alias",
    "Author",
    "Injection",
    "Item",
    "ItemRevision",
    "Message",
    "OwnerKey",
    "Progress",
    "ProgressVersion",
    "Prompt",
    "PromptVersion",
    "Proposal",
    "RecallQuestion",
    "Receipt",
    "Removed",
    "Session",
    "Subject",
    "Summary",
    "Unit",
    "UnitStaged",
    "UnitTokens",
    "Upkeep",
]
