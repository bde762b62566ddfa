"""The people of the drill do not wait for a process that only they can let go on."""

from __future__ import annotations

import psycopg
from django.conf import settings

from agentstate.db import sql
from agentstate.dev.drill import people
from agentstate.dev.testing import superuser_url
from tests.tenancy.people import make_tenant


def test_what_a_stopped_process_holds_is_asked_for_again_later(committed_db: None) -> None:
    make_tenant("acme")
    held = "UPDATE tenants_tenant SET name = 'held' WHERE slug = 'acme'"
    asked: list[int] = []
    with psycopg.connect(superuser_url(str(settings.DATABASES["default"]["NAME"]))) as stopped:
        stopped.execute(held)
        assert not people.unless_held(lambda: asked.append(sql.execute(held)))
        stopped.rollback()
    assert people.unless_held(lambda: asked.append(sql.execute(held)))
    assert asked == [1]
    assert sql.rows("SELECT current_setting('lock_timeout')") == [("0",)]
