"""System checks. None calls TikTok, and no message contains a secret.

Ids are never reused. Errors: E001 no dict, E002 missing key, E003 unknown key, E004 wrong value,
E005 redirect URI, E006 cache, E007 session factory, E008 time zones, E009 authorization URL of
another app, E010 short claim. Warnings: W001 redirect URI (E005 while DEBUG is on), W002 API base
URL, W003 authorization URL, W004 no encryption key, W005 short key, W006 guessable key, W007 key
shared with Django, W008 repeated key, W009 two redirect URIs, W010 (now E010), W011 redirect URI
from the request, W012 session cookie that browsers do not send, W013 cache that processes do not
share, W014 tokens that no configured key decrypts, W015 tokens encrypted with an old key, W016
tokens that could not be checked. W011 and W013 only run with ``check --deploy``, W014 to W016 only
with ``check --database`` and ``migrate``.
"""

from __future__ import annotations

from . import encryption, oauth, settings  # noqa: F401 -- importing them lists their checks
from .registry import register

__all__ = ["register"]
