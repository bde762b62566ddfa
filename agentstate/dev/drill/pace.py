"""Durations of a drill, in seconds, all in proportion to its lease. Import after the environment is set."""

from __future__ import annotations

import os

LEASE_S = float(os.environ.get("AGENTSTATE_LEASE_S", "0.5"))

LEASE_S_MAX = 3.0  # or a late act comes after the ten seconds for which the tools' client waits

# The other side
REPLY_DELAY_S = 1.6 * LEASE_S  # a slow answer outlasts the lease: only heartbeats keep the run
ACT_DELAY_S = 3.0 * LEASE_S  # a slow act happens when whoever called may be gone
SETTLES_WITHIN_S = 6.0 * LEASE_S  # longer than any act is late, and any process stands still before its send
TIMEOUT_S = 6.0 * LEASE_S
UNDER_WAY_S = 0.2 * LEASE_S
PAUSE_S = 0.8 * LEASE_S

# The conductor
TICK_S = 0.03
STOPPED_S = 2.0 * LEASE_S
TAKEN_S_MAX = 8.0 * LEASE_S  # by then somebody has taken over what stands still
# Who stands still for longer between the check and the send acts when nobody expects it any more. Nothing can hold
# that back, and so it proves nothing.
STOPPED_S_MAX = SETTLES_WITHIN_S - ACT_DELAY_S
GATHER_S = 0.6 * LEASE_S  # faults that hit the whole world wait so long for more processes to stand still
WAVE_S_MAX = 20.0 + 25.0 * LEASE_S
QUIET_S_MAX = 4.0 + 8.0 * LEASE_S


def lease_for_this_machine() -> float:
    """0.5 s where a core is free. A claim is a few hundred small waits, so on a busy machine it takes far longer."""
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(LEASE_S_MAX, max(0.5, 0.6 * waiting))
