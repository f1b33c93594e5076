"""``python -m tests.support.themed_site THEME TIKTOK``: the test site with a theme of the admin.

A process of its own, because a theme replaces parts of the admin for good. Prints one line of JSON
with the session of a superuser and the primary key of an account, then serves until it is ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

__all__: list[str] = []


def configure(theme: str, tiktok: str) -> None:
    from django.conf import settings

    from tests import settings as usual

    values = {name: getattr(usual, name) for name in dir(usual) if name.isupper()}
    memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["THEMED_DATABASE"]}
    values.update(
        DATABASES={"default": memory},
        INSTALLED_APPS=[theme, *usual.INSTALLED_APPS],
        ALLOWED_HOSTS=["127.0.0.1"],
        DEBUG=True,  # serves the style sheets
        TIKTOK_BUSINESS={
            **usual.TIKTOK_BUSINESS,
            "SESSION_FACTORY_PATH": None,
            "AUTHORIZATION_URL": f"{tiktok}/v2/auth/authorize",
            "API_BASE_URL": f"{tiktok}/open_api/v1.3",
        },
    )
    del values["ROOT"]
    settings.configure(**values)


def main(theme: str, tiktok: str) -> None:
    configure(theme, tiktok)
    import django

    django.setup()
    from wsgiref.simple_server import make_server

    from django.contrib.staticfiles.handlers import StaticFilesHandler
    from django.core.handlers.wsgi import WSGIHandler
    from django.core.management import call_command
    from django.test import Client

    from django_tiktok_business import services
    from tests.support.factories import make_account, make_user

    call_command("migrate", verbosity=0)
    user = make_user("ada", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    grant: dict[str, Any] = json.loads(sys.stdin.readline())
    account = make_account(owner=user, metrics_synced_at=None, **grant)
    services.sync_profile(account)
    with make_server("127.0.0.1", 0, StaticFilesHandler(WSGIHandler())) as server:
        session = client.cookies["sessionid"].value
        served = {"port": server.server_port, "session": session, "account": account.pk}
        sys.stdout.write(json.dumps(served) + "\n")
        sys.stdout.flush()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdin.read()  # until the test closes it
        server.shutdown()


main(*sys.argv[1:])
