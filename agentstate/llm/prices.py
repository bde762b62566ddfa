"""What model calls cost and how large a model's window is, from the price list that ships with genai-prices.

The list is a snapshot in the package; nothing is fetched. A model nobody listed costs nothing here and says so by None.
"""

from __future__ import annotations

from functools import lru_cache

from genai_prices import Usage, calc_price
from genai_prices.data_snapshot import get_snapshot

MODELS_REMEMBERED_MAX = 1_000


def cost(model: str, tokens_in: int, tokens_out: int) -> float | None:
    """US dollars of one call; None when the model is not listed."""
    provider_id, name = _split(model)
    try:
        usage = Usage(input_tokens=tokens_in, output_tokens=tokens_out)
        return float(calc_price(usage, name, provider_id=provider_id).total_price)
    except LookupError:
        return None


@lru_cache(maxsize=MODELS_REMEMBERED_MAX)
def context_window(model: str) -> int | None:
    """Tokens the model can read at once; None when it is not listed or the list does not say."""
    provider_id, name = _split(model)
    try:
        return get_snapshot().find_provider_model(name, None, provider_id, None)[1].context_window
    except LookupError:
        return None


def _split(model: str) -> tuple[str | None, str]:
    """`openai/gpt-4o` names its provider, `gpt-4o` does not."""
    provider_id, _, name = model.partition("/")
    return (provider_id, name) if name else (None, model)
