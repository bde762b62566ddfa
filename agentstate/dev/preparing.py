"""`python -m agentstate.dev.preparing`: migrate as owner and seed as the application, in one start of Django.

Prints one line of JSON: what the seed made.
"""

from __future__ import annotations

import json

import django
from django.core.management import call_command


def main() -> None:
    django.setup()
    call_command("migrate", database="owner", verbosity=0)
    from agentstate.dev import seed

    print(json.dumps(seed.run()))


if __name__ == "__main__":
    main()
