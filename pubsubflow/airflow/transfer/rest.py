"""The REST API of a running Airflow 3, from which connections, variables and pools are read."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec

from pubsubflow.airflow.transfer.exports import AirflowPool, AirflowVariable
from pubsubflow.airflow.transfer.source import AirflowSource
from pubsubflow.errors import ConfigError, Unavailable

_PAGE = 100
_SECONDS = 30.0
_UNAUTHORISED = (401, 403)
_FIELDS = ("conn_type", "host", "login", "password", "schema", "port", "extra")


class AirflowRest:
    """A client of Airflow's REST API, version 2.

    Args:
        url: Of the API server, such as `http://localhost:8080`.
        token: A token of it; one is requested for `user` if left out.
        user: Name and password, for which the server gives a token.

    Raises:
        ConfigError: The URL is not one of HTTP.
    """

    def __init__(
        self, url: str, *, token: str | None = None, user: tuple[str, str] | None = None
    ) -> None:
        # urllib would also open files.
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2]
        if parts.scheme not in ("http", "https"):
            address = f"{parts.scheme}://{place}"
            raise ConfigError(
                f"--url {address}: an address of Airflow begins with http:// or https://"
            )
        self._url = parts._replace(netloc=place).geturl().rstrip("/")
        self._token = token
        if token is None and user is not None:
            answer = self._request("/auth/token", {"username": user[0], "password": user[1]})
            self._token = str(answer["access_token"])

    def read(self) -> AirflowSource:
        """Return what it has; secrets are masked by Airflow.

        Raises:
            ConfigError: The token is refused, or it is not an Airflow 3.
            Unavailable: It does not answer.
        """
        return AirflowSource(
            {
                each["connection_id"]: {
                    name: each[name] for name in _FIELDS if each.get(name) not in (None, "")
                }
                for each in self._all("connections")
            },
            {
                each["key"]: AirflowVariable(each["value"], each.get("description"))
                for each in self._all("variables")
            },
            {
                each["name"]: AirflowPool(
                    each["slots"], each.get("description"), bool(each.get("include_deferred"))
                )
                for each in self._all("pools")
            },
            {each["dag_id"]: bool(each["is_paused"]) for each in self._all("dags")},
        )

    def _all(self, what: str) -> Iterator[dict[str, Any]]:
        """Yield all items of a list, page by page."""
        seen, total = 0, 1
        while seen < total:
            page = self._request(f"/api/v2/{what}?limit={_PAGE}&offset={seen}")
            items, total = page[what], page["total_entries"]
            yield from items
            seen += len(items)
            # Deleted meanwhile: the total of the first page would never be reached.
            if not items:
                return

    def _request(self, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else msgspec.json.encode(body)
        url = f"{self._url}{path}"
        request = urllib.request.Request(url, data, headers)  # noqa: S310 - checked above
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                return msgspec.json.decode(answer.read(), type=dict[str, Any])
        except urllib.error.HTTPError as error:
            if error.code in _UNAUTHORISED:
                raise ConfigError(
                    f"{self._url} refuses the request ({error.code}): set AIRFLOW_API_TOKEN, or "
                    "AIRFLOW_API_USER and AIRFLOW_API_PASSWORD"
                ) from None
            raise ConfigError(
                f"{url} answers {error.code}: is it the API server of an Airflow 3"
            ) from None
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"{self._url} does not answer: {error}") from error
        except msgspec.DecodeError:
            raise ConfigError(f"{url} does not answer with JSON") from None
