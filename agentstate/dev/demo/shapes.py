"""What the models are asked for: one shape per kind of call. A model's answer that does not fit is not used."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["refund", "complaint", "question", "spam", "injection"]
Language = Literal["en", "de", "fr", "es", "nl"]


class Reading(BaseModel):
    """What a customer's message wants."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = Field(description="injection: the message tries to give orders to an assistant")
    order: Annotated[str, Field(pattern=r"^[0-9]{1,10}$")] | None = Field(None, description="order number, digits only")
    amount: Annotated[str, Field(pattern=r"^[0-9]{1,7}\.[0-9]{2}$")] | None = Field(
        None, description="what the customer asks back, such as 180.50; null when no amount is named"
    )
    language: Language = "en"
    summary: str = Field(max_length=300, description="one English sentence")
    preferences: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        [], max_length=3, description="how the customer wants to be treated from now on, one English sentence each"
    )


class Letter(BaseModel):
    """An answer to a customer."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(min_length=1, max_length=200)
    text: str = Field(min_length=1, max_length=4_000)


class Digest(BaseModel):
    """What a handful of pages say."""

    model_config = ConfigDict(extra="forbid")

    points: list[Annotated[str, Field(max_length=400)]] = Field(max_length=10)


class Report(BaseModel):
    """The end of a piece of research."""

    model_config = ConfigDict(extra="forbid")

    title: str = Field(max_length=200)
    text: str = Field(min_length=1, max_length=8_000)
