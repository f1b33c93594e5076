"""A drive through the whole app with known secrets, and everything that comes out of it.

TikTok is the simulator over real HTTP, so that `requests` and urllib3 do and log what they do in
production. Whatever can be seen on the way is kept as `Evidence`, by the place where it was seen.
"""

from __future__ import annotations

import base64
import json
import pickle
import re
import threading
import warnings
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import asdict
from datetime import timedelta
from html import unescape
from io import StringIO
from typing import TYPE_CHECKING, Any

import requests
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.core import mail, serializers
from django.core.cache import caches
from django.db import connection
from django.test import Client, override_settings
from django.utils import timezone

from django_tiktok_business import services, signals
from django_tiktok_business.fields import EncryptedTextField
from django_tiktok_business.models import BusinessAccount
from django_tiktok_business.simulator import FAULTS
from django_tiktok_business.simulator.faults import NOT_OVER_HTTP
from tests.support import canaries, canary_operations, servers
from tests.support.administrators import LIST, select
from tests.support.canaries import (
    ADMINS,
    TABLE,
    CanarySimulator,
    Evidence,
    canary,
    crashing_receiver,
    everything_logged,
)
from tests.support.factories import make_user
from tests.support.leaks import shown_of
from tests.support.simulator import forget_limits, next_statement, override_tiktok
from tests.support.simulator_calls import PROFILE
from tests.support.visits import CONNECT, come_back, failing, messages_of, rendered, value_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from django_tiktok_business.simulator.wire import Call

TRUTHS = (True, False)


class Drive:
    """Uses the whole app and records what comes out."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.evidence = Evidence()
        self.app_secret = canary("app-secret")
        self.keys = [canary("new-key"), canary("old-key")]
        self.odd_token = f"act.SIM{canary('odd')}\n"
        self.stop = threading.Event()
        self.reported: set[type[Exception]] = set()
        self.simulator = CanarySimulator(
            folder / "tiktok.json",
            app_secret=self.app_secret,
            rate_limits=False,
            on_call=self.end_patience,
        )
        self.evidence.secrets |= {self.app_secret, *self.keys, self.odd_token}

    def run(self) -> Evidence:
        stdout, stderr = StringIO(), StringIO()
        secret_key = canary("secret-key")
        self.evidence.secrets |= {secret_key, settings.SECRET_KEY}
        with ExitStack() as stack:
            self.base_url = stack.enter_context(self.simulator.serve())
            stack.enter_context(
                override_settings(
                    DEBUG=True,
                    SECRET_KEY=secret_key,
                    ADMINS=ADMINS,
                    ROOT_URLCONF=canaries.__name__,
                )
            )
            stack.enter_context(
                override_tiktok(
                    APP_SECRET=self.app_secret,
                    ENCRYPTION_KEYS=self.keys[1:],
                    API_BASE_URL=f"{self.base_url}/open_api/v1.3",
                    SESSION_FACTORY_PATH=None,
                    MAX_ATTEMPTS=1,
                )
            )
            caught = stack.enter_context(warnings.catch_warnings(record=True))
            warnings.simplefilter("always")
            stack.enter_context(redirect_stdout(stdout))
            stack.enter_context(redirect_stderr(stderr))
            stack.enter_context(everything_logged(self.evidence))
            self.client = Client(raise_request_exception=False)
            self.client.force_login(make_user("root", is_staff=True, is_superuser=True))
            self._all()
        self.evidence.keep("stdout", "all along", stdout.getvalue())
        self.evidence.keep("stderr", "all along", stderr.getvalue())
        self.evidence.keep("warnings", "all along", "\n".join(map(str, caught)))
        self.evidence.secrets |= self.simulator.issued
        return self.evidence

    def _all(self) -> None:
        self.visits()
        for name in FAULTS:
            self.fault(name)
        self.crashes()
        self.own_code()
        self.administration()
        canary_operations.commands(self)
        canary_operations.queue(self)
        self.look("at the end")
        for call in self.simulator.calls:
            self.evidence.acted_out.add((call.path, call.fault))
            self.evidence.keep("simulator", "log", repr(asdict(call)))
        for page in ("state", "log"):
            answer = requests.get(f"{self.base_url}/_simulator/{page}", timeout=30)
            self.evidence.keep("simulator", page, f"{answer.headers} {answer.text}")

    def end_patience(self, call: Call) -> None:
        """Skip the minute that a batch waits when TikTok says that it calls too often."""
        if call.code == 40100:
            self.stop.set()

    # Seeing

    def see(self, when: str, response: Any) -> Any:
        self.evidence.keep("response", when, rendered(response))
        self.evidence.keep("response", when, repr(messages_of(response)))
        return response

    def attempt(self, when: str, act: Callable[[], Any]) -> Any:
        """Do something that may fail; show its result or error to every observer."""
        try:
            outcome = act()
        except Exception as error:  # noqa: BLE001 -- whatever it is
            outcome = error
        self.evidence.keep("outcome", when, repr(outcome))
        with suppress(pickle.PicklingError, TypeError, AttributeError):
            self.evidence.keep("pickle", when, pickle.dumps(outcome))
        if isinstance(outcome, Exception):
            is_new = type(outcome) not in self.reported
            self.reported.add(type(outcome))
            for who, text in shown_of(outcome, with_pages=is_new).items():
                self.evidence.keep("exception", f"{when}, {who}", text)
        return outcome

    def look(self, when: str) -> None:
        """Record everything that is stored, and empty the cache and the mailbox."""
        evidence = self.evidence
        for table in connection.introspection.table_names():
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
                evidence.keep("database", f"{when}, {table}", repr(cursor.fetchall()))
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT access_token, refresh_token FROM {TABLE}")
            evidence.ciphertexts += [text for row in cursor.fetchall() for text in row]
        for session in Session.objects.all():
            evidence.keep("session", when, repr(session.get_decoded()))
        evidence.keep("history", when, repr(list(LogEntry.objects.values())))
        evidence.keep("cache", when, repr(vars(caches["default"])["_cache"]))
        for message in mail.outbox:
            evidence.keep("mail", when, message.message().as_bytes())
            evidence.keep("mail", when, f"{message.subject} {message.body}")
            for page, _ in getattr(message, "alternatives", []):
                evidence.keep("mail", when, str(page))
        mail.outbox.clear()
        forget_limits()

    # In the browser

    def back_from_tiktok(self, account: str = "harbour_bakery", **decision: Any) -> str:
        """Press "connect" and decide; return the URL that follows, with code and state."""
        response = self.client.post(CONNECT)
        url = response.headers["Location"]
        state = value_in(url, "state")
        self.evidence.secrets.add(state)
        # This secret is on its way to TikTok, in the one place where it belongs.
        response.headers["Location"] = url.replace(state, "STATE")
        self.see("connect", response)
        return come_back(self.simulator, url, account=account, **decision)

    def connected(self, account: str = "harbour_bakery") -> BusinessAccount:
        response = self.see("callback", self.client.get(self.back_from_tiktok(account)))
        assert response.status_code == 302, response.content
        self.see("list", self.client.get("/tiktok/"))
        return BusinessAccount.objects.get(open_id=self.simulator.open_id(account))

    def visits(self) -> None:
        self.see("confirm", self.client.get(CONNECT))
        back = self.back_from_tiktok()
        for when in ("callback", "replay"):
            self.see(when, self.client.get(back))
        self.see("denied", self.client.get(self.back_from_tiktok("alpine_velo", approve=False)))
        back = self.back_from_tiktok()
        self.see("foreign state", self.client.get(f"{back}x"))
        self.see("two codes", self.client.get(f"{back}&code=x"))
        self.see("logged out", Client().get(back))
        self.simulator.fail_next("html", path=PROFILE)
        account = self.connected("galaxy_gadgets")
        self.remember_keys(account, self.keys[-1])
        for response in (self.client.get, self.client.post):
            url = f"/tiktok/{account.pk}/disconnect/"
            self.see("disconnect", response(url))

    def remember_keys(self, account: BusinessAccount, secret: str) -> None:
        """The keys derived for this account; checks that they decrypt its tokens."""
        account.refresh_from_db()
        stored = BusinessAccount.objects.filter(pk=account.pk).values().get()
        for name in ("access_token", "refresh_token"):
            field = BusinessAccount._meta.get_field(name)
            assert isinstance(field, EncryptedTextField)
            names = [field.purpose, *(str(getattr(account, bound)) for bound in field.bound_to)]
            info = json.dumps(names).encode()
            key = HKDF(SHA256(), 32, salt=None, info=info).derive(secret.encode())
            ciphertext = dict[str, Any](stored)[name].text.rpartition(":")[2]
            token = Fernet(base64.urlsafe_b64encode(key)).decrypt(ciphertext)
            assert token.decode() == getattr(account, name)
            self.evidence.secrets |= {key, key[:16], key[16:]}

    def crashes(self) -> None:
        """Crash right after TikTok has issued the tokens, and just before."""
        for debug in TRUTHS:
            with override_settings(DEBUG=debug):
                back = self.back_from_tiktok().partition("?")[2]
                self.see("crash in a hook", self.client.get(f"/crash/?{back}"))
                back = self.back_from_tiktok(f"newcomer_{debug}")
                with next_statement("INSERT INTO", LookupError("no disk")) as arm:
                    arm()
                    self.see("crash while saving", self.client.get(back))
                back = self.back_from_tiktok(f"stranger_{debug}")
                with failing("INSERT INTO", TABLE):
                    self.see("refused while saving", self.client.get(back))
                back = self.back_from_tiktok()
                chain = [*settings.MIDDLEWARE, "tests.support.canaries.crashing_middleware"]
                with override_settings(MIDDLEWARE=chain):
                    crashing = Client(raise_request_exception=False)
                    crashing.cookies = self.client.cookies
                    self.see("crash afterwards", crashing.get(back))
                signals.account_connected.connect(crashing_receiver)
                signals.tokens_refreshed.connect(crashing_receiver)
                try:
                    services.refresh_account(self.connected())
                finally:
                    signals.account_connected.disconnect(crashing_receiver)
                    signals.tokens_refreshed.disconnect(crashing_receiver)
        self.look("after crashes")

    # What goes wrong with TikTok

    def fault(self, name: str) -> None:
        account = self.connected()
        self.stop.clear()
        tokens = f"Not valid: {account.access_token}, {account.refresh_token}"
        every: dict[str, dict[str, Any]] = {
            "code": {"code": 40107, "message": tokens},
            "http_status": {"http_status": 502},
            "http_429": {"retry_after": 1},
            "timeout_before": {"seconds": 1},
            "timeout_after": {"seconds": 1},
            "missing_field": {"field": ["open_id", "access_token", "scope"]},
            "empty_field": {"field": ["open_id", "access_token", "scope"]},
            "altered_field": {"field": "access_token", "value": self.odd_token},
        }
        details = every.get(name, {})
        del tokens, every
        with self.broken_network(name):
            if name not in NOT_OVER_HTTP:
                self.simulator.fail_next(name, times=None, **details)
            back = self.back_from_tiktok("galaxy_gadgets")
            self.see(f"callback, {name}", self.client.get(back))
            forget_limits()
            for what, act in self.calls_for(account).items():
                self.attempt(f"{what}, {name}", act)
                forget_limits()
                account.refresh_from_db()
        self.simulator.clear_faults()
        self.look(name)

    @contextmanager
    def broken_network(self, name: str) -> Iterator[None]:
        """Act out what a server cannot, and do not wait for a silent one."""
        with ExitStack() as stack:
            keys: dict[str, Any] = {}
            if name in ("timeout_before", "timeout_after"):
                keys["SESSION_FACTORY_PATH"] = "tests.support.canaries.impatient_session"
            elif name == "connection_refused":
                port = stack.enter_context(servers.refused_port())
                keys["API_BASE_URL"] = f"http://127.0.0.1:{port}/open_api/v1.3"
            elif name == "dns_failure":
                keys["API_BASE_URL"] = "http://nothing.invalid/open_api/v1.3"
            elif name == "tls_failure":
                context, _ = servers.self_signed(self.folder)
                server = stack.enter_context(servers.serving(servers.send(b""), context))
                keys["API_BASE_URL"] = server.base_url
            stack.enter_context(override_tiktok(**keys))
            yield

    def calls_for(self, account: BusinessAccount) -> dict[str, Callable[[], Any]]:
        """Make every call of the app to TikTok; the last one ends the connection."""

        def with_client(call: Callable[[services.AccountClient], Any]) -> Any:
            with services.account_client(account) as client:
                return call(client)

        due = timezone.now() + timedelta(minutes=1)
        return {
            "profile": lambda: services.sync_profile(account),
            "token_info": lambda: with_client(lambda client: client.token_info()),
            "read": lambda: with_client(
                lambda client: client.request("GET", "business/video/list")
            ),
            "write": lambda: with_client(
                lambda client: client.request("POST", "business/comment/create", json={"a": 1})
            ),
            "make due": lambda: BusinessAccount.objects.update(access_token_expires_at=due),
            "batch": lambda: services.refresh_due_accounts(sync_profiles=True, stop=self.stop),
            "get_access_token": lambda: len(
                services.get_access_token(account, min_validity_seconds=3600)
            ),
            "refresh": lambda: services.refresh_account(account),
            "revoke": lambda: services.disconnect_account(account),
        }

    # What a project does with accounts

    def own_code(self) -> None:
        account = self.connected()
        for what, act in self.calls_for(account).items():
            self.attempt(what, act)
            account.refresh_from_db()
        self.connected()
        rows = BusinessAccount.objects.order_by("pk")
        for what, held in {
            "instance": rows[0],
            "deferred": rows.only("pk")[0],
            "assigned": BusinessAccount(app_id="1", open_id="2", access_token=rows[0].access_token),
            "queryset": rows,
            "values": list(rows.values()),
            "python": serializers.serialize("python", rows),
        }.items():
            self.attempt(what, lambda held=held: held)  # type: ignore[misc]

    # In the admin

    def administration(self) -> None:
        account = self.connected()
        get, post = self.client.get, self.client.post
        page = self.see("admin list", get(LIST)).content.decode()
        for query in {*re.findall(r'href="(\?[^"]+)"', page), "?q=harbour", "?e=1", "?all="}:
            self.see(f"admin list {query}", get(f"{LIST}{unescape(query)}", follow=True))
        pages = {
            str(url.pattern).rstrip("/").rpartition("/")[2]: f"{LIST}{account.pk}/"
            for url in admin.site.get_model_admin(BusinessAccount).get_urls()
            if url.name and "object_id" in str(url.pattern)
        }
        one = {name: f"{url}{name}/" for name, url in pages.items()}
        gone = one.pop("delete")
        for url in ("/admin/", f"{LIST}add/", *one.values(), gone):
            self.see(f"admin {url}", get(url, follow=True))
        for fault in ({"code": 50000}, {"fault": "truncated"}, None):
            for name in ("refresh", "sync", "disconnect"):
                if fault is not None:
                    self.simulator.fail_next(**fault)
                self.see(f"admin {name}", post(one[name], {"post": "yes"}, follow=True))
                self.simulator.clear_faults()
                forget_limits()
            account = self.connected()
        for url in sorted({*one.values()} - {one["disconnect"]}):
            self.see(f"admin POST {url}", post(url, {"owner": ""}, follow=True))
        for action in ("refresh_selected", "sync_selected", "disconnect_selected"):
            self.see(action, select(self.client, action, [account]))
            self.see(action, select(self.client, action, [account], post="yes"))
        self.see("admin delete", post(gone, {"post": "yes"}, follow=True))
        self.see(
            "delete_selected", select(self.client, "delete_selected", [self.connected()], post="y")
        )
        self.connected()
        self.look("after the admin")
