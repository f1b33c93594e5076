"""A stateful, strict simulator of TikTok's Accounts API v1.3. Needs no Django and no network.

In process, for tests::

    simulator = Simulator()
    session = simulator.session()       # a requests.Session; any host leads to the simulator
    location = simulator.authorize(authorization_url, account="harbour_bakery")
    simulator.fail_next("timeout_after", path="/tt_user/oauth2/refresh_token/")
    simulator.clock.advance(86_400)

Over HTTP, for development: ``python -m django_tiktok_business.simulator --port 8420``, or
``with Simulator().serve() as base_url``. It listens on 127.0.0.1 only.

What it simulates, as known on 2026-11-22:

* ``GET /v2/auth/authorize``, with or without the trailing slash: the consent page. An unknown app,
  an unregistered redirect URL or an unapproved scope gets an error page and no redirect.
  Redirect URL rules, codes (600 seconds, single use), ``disable_auto_auth``: page "Accounts API -
  Authorization", doc id 1738083939371009.
* ``POST /open_api/v1.3/tt_user/oauth2/token/``, ``.../refresh_token/``, ``.../revoke/`` and
  ``POST /open_api/v1.3/tt_user/token_info/get/``: the formats that independent clients agree on.
  A refresh token lives for one year from the consent; a refresh does not extend it, as responses
  recorded from the real service show.
* ``GET /open_api/v1.3/business/get/``: profile fields by scope, daily metrics and audience, with
  the fields of TikTok's published specification.
* Error codes, HTTP statuses and rate limits: the official appendix, doc ids 1737172488964097,
  1749734684478466 and 1759977800177665.

Where the documentation is silent or contradicts itself, `Simulator.configure` selects the
behaviour; ``strict=True`` selects the hardest of each. Unknown parameters are refused.

Not simulated: videos, comments, publishing, messages, mentions, hashtags, benchmarks, Spark Ads
authorization, URL properties and webhooks; app review, the app logo, the rule that only one
redirect URL is active at a time; limits per second and per day; response headers other than
``X-TT-LOGID``. Tokens, ids and people are made up.

The remote control takes and returns JSON, and never returns a token, code or secret::

    GET  /_simulator/state      {"now", "settings", "apps", "accounts", "grants", ...}
    GET  /_simulator/log        {"calls": [{"method", "path", "code", "open_id", "at", ...}]}
    POST /_simulator/clock      {"advance": seconds} or {"set": unix_seconds}
    POST /_simulator/faults     {"fault": name, "path": suffix, "times": n, ...details},
                                {"random": {"rate": 0.1, "faults": [name], "seed": 1}},
                                {"clear": true}
    POST /_simulator/settings   {name: value}; /_simulator/state lists the names
    POST /_simulator/revoke     {"open_id": "..."}: the account holder removes the app's access
    POST /_simulator/reset      {}: return to the state at the start

Faults that replace the response, with their details: ``code`` (``code``), ``http_status``
(``http_status``; ``body`` "html", "json" or "empty"), ``rate_limited``, ``http_429``
(``retry_after`` seconds), ``html``, ``empty``, ``timeout_before``, ``connection_refused``,
``dns_failure``, ``tls_failure``. The request is not processed, except with ``processed=True``,
which ``code``, ``http_status``, ``html`` and ``empty`` accept.

Faults that lose or alter the response of a processed request: ``timeout_after``, ``reset_after``,
``cut_off`` (the connection ends in the middle of the body), ``truncated`` (half the JSON),
``null_data``, ``string_code``, ``wrong_shape`` (with ``shape="document"`` the whole response is a
list), ``missing_field`` and ``empty_field`` (``field``), ``altered_field`` (``field``, ``value``),
``legacy_names``.

Over HTTP, timeouts keep the client waiting for ``seconds`` (30), and ``connection_refused``,
``dns_failure`` and ``tls_failure`` are not available.
"""

from __future__ import annotations

from .consent import ConsentPageError
from .core import Simulator
from .faults import FAULTS
from .settings import Clock
from .state_file import StateFileError
from .wire import Call

__all__ = ["FAULTS", "Call", "Clock", "ConsentPageError", "Simulator", "StateFileError"]
