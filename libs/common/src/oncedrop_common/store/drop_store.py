"""The store that the services are given."""

from __future__ import annotations

from oncedrop_common.errors import ConfigurationError
from oncedrop_common.settings import Settings
from oncedrop_common.store.arrows import Arrows
from oncedrop_common.store.client import connect
from oncedrop_common.store.connection import Leases
from oncedrop_common.store.events import Events
from oncedrop_common.store.housekeeping import Housekeeping


class DropStore(Arrows, Housekeeping, Events):
    """Records in Redis, and what lies beside them."""

    @classmethod
    def from_settings(cls, settings: Settings) -> DropStore:
        """A store for the URL in the settings; connects when first used.

        Raises:
            ConfigurationError: No URL, or one of no known kind.
        """
        if settings.redis_url is None:
            raise ConfigurationError("ONCEDROP_REDIS_URL is not set; `make run` sets it by itself")
        url = settings.redis_url.get_secret_value()
        timeout_seconds = settings.redis_timeout_seconds
        return cls(connect(url, timeout_seconds), Leases.from_settings(settings), timeout_seconds)
