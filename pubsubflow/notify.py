"""Notifiers: what `on_failure=` and the like send to chats, mailboxes, pagers and programs.

A notifier is a value: its fields are what it sends and the name of a connection, never a secret.
Its texts are Jinja templates over `ctx`, `text`, `run`, `task`, `params`, `error`, `kind`,
`attempt`, `failed` and `dataset`.
"""

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Any, Literal

import anyio.to_thread
import msgspec
from msgspec import Struct
from msgspec.structs import asdict

from pubsubflow.authoring.runtime.callback_context import CallbackContext
from pubsubflow.authoring.source_location import definition_error
from pubsubflow.errors import ConfigError, PubsubflowError
from pubsubflow.hooks.http import HttpFailed, HttpHook
from pubsubflow.hooks.slack import SlackHook
from pubsubflow.hooks.smtp import SmtpHook
from pubsubflow.model.lazy_import import lazy_module
from pubsubflow.model.subscriptions import read_key, sign
from pubsubflow.plugins import load_plugin

if TYPE_CHECKING:
    from pubsubflow.authoring.runtime import templates
else:
    templates = lazy_module("pubsubflow.authoring.runtime.templates")

__all__ = ["Email", "Exec", "PagerDuty", "Slack", "Webhook"]

_PAGERDUTY = "https://events.pagerduty.com"
_MAX_SUMMARY = 1024
_FAILED = 400
_SHOWN = 500


class Slack(Struct, frozen=True, kw_only=True):
    """Send a message to Slack.

    Attributes:
        text: The message.
        connection: Of type `slack`, with `webhook_url` or `token`.
        channel: With a token; the connection's if left out.
    """

    text: str = "{{ text }}"
    connection: str = "slack_default"
    channel: str | None = None

    async def __call__(self, ctx: CallbackContext) -> None:
        """Send it."""
        hook = SlackHook(ctx.connection(self.connection))
        await hook.send(_render(self.text, ctx), channel=self.channel)


class Email(Struct, frozen=True, kw_only=True):
    """Send a mail.

    Attributes:
        to: A recipient, or several.
        subject: Its subject.
        text: Its text.
        sender: In place of the connection's.
        connection: Of type `smtp`.
    """

    to: str | Sequence[str]
    subject: str = "{{ text | truncate(180) }}"
    text: str = (
        "{{ text }}{% for each in failed %}\n{{ each.task_id }}: {{ each.error }}{% endfor %}"
    )
    sender: str | None = None
    connection: str = "smtp_default"

    async def __call__(self, ctx: CallbackContext) -> None:
        """Send it.

        Raises:
            ConfigError: Neither it nor the connection has a sender.
            PubsubflowError: The server refuses a recipient.
        """
        hook = SmtpHook(ctx.connection(self.connection))
        sender = self.sender or hook.sender
        if not sender:
            raise ConfigError(f"connection {self.connection!r} has no extra.from: give sender=")
        recipients = [self.to] if isinstance(self.to, str) else list(self.to)
        mail = EmailMessage()
        # A line break in a subject would be another header.
        mail["Subject"] = " ".join(_render(self.subject, ctx).split())
        mail["From"], mail["To"] = sender, ", ".join(recipients)
        mail["Date"], mail["Message-ID"] = formatdate(usegmt=True), make_msgid()
        mail.set_content(_render(self.text, ctx))
        async with hook as smtp:
            refused = await smtp.send(mail, recipients)
        if refused:
            raise PubsubflowError(f"the mail server refuses {', '.join(refused)}")


class PagerDuty(Struct, frozen=True, kw_only=True):
    """Send an event to PagerDuty (Events API v2).

    Attributes:
        severity: How bad it is.
        action: `resolve` in `on_success=` ends what `trigger` in `on_failure=` has begun.
        summary: The summary, of which PagerDuty keeps 1,024 characters.
        dedup_key: Events under one key are one incident; of a DAG and task, or a dataset.
        connection: With the secret `routing_key`; its `uri` is in place of PagerDuty's.
    """

    severity: Literal["critical", "error", "warning", "info"] = "error"
    action: Literal["trigger", "acknowledge", "resolve"] = "trigger"
    summary: str = "{{ text }}"
    dedup_key: str = (
        "pubsubflow/{{ dataset or ctx.dag_id }}{{ '/' ~ task.task_id if task else '' }}"
    )
    connection: str = "pagerduty_default"

    async def __call__(self, ctx: CallbackContext) -> None:
        """Send it.

        Raises:
            ConfigError: The connection has no routing key.
            HttpFailed: PagerDuty refuses it.
        """
        found = ctx.connection(self.connection)
        key = found.secrets.get("routing_key") or found.password
        if not key:
            raise ConfigError(f"connection {self.connection!r} needs the secret routing_key")
        body: dict[str, Any] = {
            "routing_key": key,
            "event_action": self.action,
            "dedup_key": _render(self.dedup_key, ctx)[:255],
        }
        if self.action == "trigger":
            body["payload"] = {
                "summary": _render(self.summary, ctx)[:_MAX_SUMMARY],
                "source": ctx.dataset or ctx.dag_id or "pubsubflow",
                "severity": self.severity,
                "component": None if ctx.task is None else ctx.task.task_id,
                "custom_details": facts(ctx),
            }
        async with HttpHook() as http:
            url = f"{(found.uri or _PAGERDUTY).rstrip('/')}/v2/enqueue"
            response = await http.request("POST", url, json=body)
        if response.status >= _FAILED:
            raise HttpFailed(
                response.status, f"PagerDuty answers {response.status}: {response.text[:_SHOWN]}"
            )


class Webhook(Struct, frozen=True, kw_only=True):
    """Post the facts as JSON, signed as Standard Webhooks has it.

    Attributes:
        connection: Of type `http`: its `uri`, its credentials, and a secret `signing_key`
            (`whsec_…`) if it is to be signed.
        path: Below that `uri`.
        body: A template in place of the JSON of the facts.
        headers: Further headers.
    """

    connection: str
    path: str = ""
    body: str | None = None
    headers: Mapping[str, str] = {}

    async def __call__(self, ctx: CallbackContext) -> None:
        """Post it.

        Raises:
            HttpFailed: The receiver refuses it.
        """
        found = ctx.connection(self.connection)
        text = json.dumps(facts(ctx)) if self.body is None else _render(self.body, ctx)
        data = text.encode()
        # The same over all tries, so that a receiver knows what it has.
        message_id = f"callback-{ctx.call}"
        headers = {"content-type": "application/json", "webhook-id": message_id}
        key = found.secrets.get("signing_key")
        if key:
            headers |= sign(read_key(key), message_id, int(time.time()), data)
        headers |= {name: _render(value, ctx) for name, value in self.headers.items()}
        async with HttpHook(found) as http:
            response = await http.request(
                "POST", self.path or (found.uri or ""), data=data, headers=headers
            )
        response.check()


class Exec(Struct, frozen=True, kw_only=True):
    """Run a program, with the facts as JSON on its standard input.

    Attributes:
        command: The program and its arguments, each a template; no shell reads them.
        environment: Further variables, each a template.
    """

    command: Sequence[str]
    environment: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        if isinstance(self.command, str) or not self.command:
            raise definition_error(
                f"notify.Exec: command={self.command!r} must be a list: a program and its arguments"
            )

    async def __call__(self, ctx: CallbackContext) -> None:
        """Run it.

        Raises:
            PubsubflowError: It exits with another code than 0.
        """
        command = [_render(each, ctx) for each in self.command]
        more = {name: _render(value, ctx) for name, value in self.environment.items()}
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                command,
                input=json.dumps(facts(ctx)).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=os.environ | more,
                check=False,
            )
        )
        output = done.stdout.decode(errors="replace").strip()
        if output:
            print(output)  # noqa: T201 - the output of the call
        if done.returncode != 0:
            raise PubsubflowError(f"{command[0]} ended with code {done.returncode}")


def facts(ctx: CallbackContext) -> dict[str, Any]:
    """Return what a callback knows, as JSON values: what `Webhook` and `Exec` send."""
    found = {
        "call": ctx.call,
        "kind": ctx.kind,
        "text": ctx.text,
        "dag_id": ctx.dag_id,
        "run": None if ctx.run is None else asdict(ctx.run),
        "task_id": None if ctx.task is None else ctx.task.task_id,
        "map_index": None if ctx.task is None or ctx.task.map_index < 0 else ctx.task.map_index,
        "attempt": ctx.attempt,
        "state": ctx.state,
        "error": ctx.error,
        "failed": [asdict(each) for each in ctx.failed],
        "dataset": ctx.dataset,
        "since": ctx.since,
        "alert": ctx.alert,
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return plain


def __getattr__(name: str) -> Any:
    """Return a notifier of another distribution, by the name of its entry point."""
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return load_plugin("notifier", name)
    except ConfigError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from error


def _render(text: str, ctx: CallbackContext) -> str:
    if "{" not in text:
        return text
    names = {
        "ctx": ctx,
        "run": ctx.run,
        "task": ctx.task,
        "params": None if ctx.run is None else ctx.run.params,
        **{name: getattr(ctx, name) for name in _FIELDS},
    }
    return templates.render_names(text, names)


_FIELDS = ("text", "error", "kind", "attempt", "failed", "dataset", "since", "state", "dag_id")
