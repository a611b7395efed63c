"""Client methods for approvals."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from pubsubflow.client.transport import Transport, quoted
from pubsubflow.model.api.approvals import ApprovalView, SignedLink
from pubsubflow.model.api.resources import Page


class ApprovalApi:
    """Methods of the client for approvals."""

    _server: Transport

    def approvals(self, *, limit: int | None = None) -> AsyncIterator[ApprovalView]:
        """Yield the approvals that wait for answers, the newest first."""
        return self._server.list("/api/v1/approvals", Page[ApprovalView], {}, limit)

    async def approval(self, approval: str) -> ApprovalView:
        """Return an approval with its answers."""
        return await self._server.get(_path(approval), ApprovalView)

    async def answer_approval(
        self,
        approval: str,
        option: str,
        *,
        values: Mapping[str, Any] | None = None,
        comment: str | None = None,
    ) -> ApprovalView:
        """Answer an approval as the holder of the token; return it.

        Args:
            approval: Its id.
            option: One of its options.
            values: What is filled into its form, if it has one.
            comment: For people.

        Raises:
            RequestFailed: It is answered already, by others or by this person, or its time is over.
            RequestRefused: The token may not answer, or the values do not fit.
        """
        body = {"option": option, "values": values or {}, "comment": comment}
        return await self._server.send("POST", _path(approval), body, ApprovalView)

    async def approval_link(
        self, approval: str, person: str, *, seconds: int = 86400
    ) -> SignedLink:
        """Make a link by which one person answers an approval without a token; for admins.

        Args:
            approval: Its id.
            person: Who is to answer by it.
            seconds: How long it holds.
        """
        body = {"person": person, "seconds": seconds}
        return await self._server.send("POST", f"{_path(approval)}/links", body, SignedLink)


def _path(approval: str) -> str:
    return f"/api/v1/approvals/{quoted(approval)}"
