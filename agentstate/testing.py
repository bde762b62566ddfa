"""What an agent's own tests need: a store in memory, runs driven in this process, crashes on purpose."""

from agentstate.sdk.testing import *  # noqa: F403
from agentstate.sdk.testing import __all__ as __all__
