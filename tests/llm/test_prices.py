"""Prices come from a list in the package; a model nobody listed has none."""

from __future__ import annotations

import pytest

from agentstate.llm import prices


def test_a_call_costs_what_the_list_says() -> None:
    once = prices.cost("gpt-4o", 1_000_000, 0)
    assert once is not None
    assert 0 < once < 100
    twice, answer = prices.cost("gpt-4o", 2_000_000, 0), prices.cost("gpt-4o", 0, 1_000_000)
    assert twice == pytest.approx(2 * once)
    assert answer is not None
    assert answer > once
    assert prices.cost("gpt-4o", 0, 0) == 0


def test_a_provider_may_stand_before_the_model() -> None:
    assert prices.cost("openai/gpt-4o", 1000, 10) == prices.cost("gpt-4o", 1000, 10)
    assert prices.context_window("openai/gpt-4o") == prices.context_window("gpt-4o") == 128_000


@pytest.mark.parametrize("model", ["scripted", "", "nobody/nothing", "/"])
def test_an_unlisted_model_has_no_price_and_no_window(model: str) -> None:
    assert prices.cost(model, 1000, 10) is None
    assert prices.context_window(model) is None
