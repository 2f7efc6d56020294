"""Several janitors take turns, to save work; nothing goes wrong when they don't."""

from __future__ import annotations

import secrets

import structlog

from oncedrop_common.errors import StoreUnavailable
from oncedrop_common.store.drop_store import DropStore

RENEW_SECONDS = 5
_LEASE_SECONDS = 15

_log = structlog.get_logger()


class Leadership:
    """Whether this janitor is the one whose turn it is.

    Args:
        locked: False: every janitor works, whatever the others do.
    """

    def __init__(self, store: DropStore, *, locked: bool) -> None:
        self._store = store
        self._locked = locked
        self._id = secrets.token_hex(8)
        self.leading = not locked

    async def renew(self) -> bool:
        """Ask for the lead, or keep it for some seconds more.

        Returns:
            Whether this janitor leads; nobody does while Redis does not answer.
        """
        if not self._locked:
            return True
        try:
            leading = await self._store.lead(self._id, _LEASE_SECONDS)
        except StoreUnavailable:
            leading = False
        if leading != self.leading:
            _log.info("lead_taken" if leading else "lead_lost")
        self.leading = leading
        return leading
