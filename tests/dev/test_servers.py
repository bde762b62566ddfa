"""The throw-away servers of the tests are the ones that the other tests believe in."""

from __future__ import annotations

import os

import psycopg
import pytest
import redis as redis_client
from django.contrib.contenttypes.models import ContentType
from django.db import ProgrammingError, connection, transaction

from agentstate.tenants.models import User


@pytest.mark.django_db
def test_tests_connect_as_the_role_that_owns_nothing() -> None:
    with connection.cursor() as cursor:
        cursor.execute("select current_user, rolsuper, rolbypassrls from pg_roles where rolname = current_user")
        assert cursor.fetchone() == ("app", False, False)
        with pytest.raises(ProgrammingError), transaction.atomic():
            cursor.execute("truncate tenants_user cascade")


@pytest.mark.parametrize("turn", [1, 2])
def test_committed_rows_are_gone_in_the_next_test(committed_db: None, turn: int) -> None:
    assert User.objects.count() == 0
    User.objects.create_user(f"turn{turn}@example.test")
    with psycopg.connect(os.environ["DATABASE_URL"]) as other:
        assert other.execute("select count(*) from tenants_user").fetchone() == (1,)
    assert ContentType.objects.exists(), "rows that the migrations made stay"


@pytest.mark.parametrize("turn", [1, 2])
def test_redis_is_empty_at_the_start_of_each_test(redis: redis_client.Redis, turn: int) -> None:
    assert redis.dbsize() == 0
    redis.set("left", "behind")
