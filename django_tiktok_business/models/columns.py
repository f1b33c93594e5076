"""Groups of columns that change together."""

from __future__ import annotations

from typing import Any

NO_CLAIM: dict[str, Any] = {"claim_id": "", "claim_expires_at": None}
NO_FAILURE: dict[str, Any] = {
    "consecutive_failures": 0,
    "next_attempt_at": None,
    "rejected_at": None,
    "last_error_at": None,
    "last_error_code": None,
    "last_error_message": "",
    "last_error_request_id": "",
}

# The columns that a refresh, a rejection or a disconnect changes; the caller keeps its values of
# all others.
CREDENTIAL_COLUMNS = (
    "access_token",
    "refresh_token",
    "access_token_expires_at",
    "refresh_token_expires_at",
    "scopes",
    "status",
    "last_refreshed_at",
    "last_error_at",
    "last_error_code",
    "last_error_message",
    "last_error_request_id",
    "consecutive_failures",
    "next_attempt_at",
    "rejected_at",
    "claim_id",
    "claim_expires_at",
    "credentials_version",
    "updated_at",
)
