/** Dialogs, above all those of actions: what will happen, the same as a command, and the outcome. */
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { messageOf } from "../core/api";
import { type About, lacking } from "../core/me";
import { Copy, Problem } from "./parts";

/** The last outcome, for readers of the screen and for those who look. */
export const outcome = signal("");

export function say(text: string): void {
  outcome.value = text;
}

export function Dialog(props: { title: string; close: () => void; children: ComponentChildren; wide?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const id = useId();
  const gone = useRef(false);
  // At once, not after the next frame: a key that comes before it is open would act on the view.
  useLayoutEffect(() => {
    const shown = dialog.current!;
    shown.showModal();
    return () => {
      gone.current = true;
      shown.close();
    };
  }, []);
  // Escape closes it with its key; `close` comes later, when another dialog may be open.
  const cancelled = (event: Event) => {
    if (event.target !== dialog.current) return;
    event.preventDefault();
    props.close();
  };
  const closed = (event: Event) => {
    if (event.target === dialog.current && !gone.current) props.close();
  };
  return (
    <dialog
      ref={dialog}
      class={props.wide ? "wide" : ""}
      aria-labelledby={id}
      onCancel={cancelled}
      onClose={closed}
      onClick={(event) => event.target === dialog.current && props.close()}
    >
      <div class="dialog">
        <header>
          <h2 id={id}>{props.title}</h2>
          <button type="button" class="quiet" aria-label="Close" onClick={props.close}>
            ✕
          </button>
        </header>
        {props.children}
      </div>
    </dialog>
  );
}

const SAFE = /^[A-Za-z0-9_./:=@%+,-]+$/;

/** Quote an argument for a POSIX shell. */
export function quoted(text: string): string {
  return SAFE.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

export function command(...parts: (string | number | false | undefined)[]): string {
  const given = parts.filter((part) => part !== false && part !== undefined && part !== "");
  return ["pubsubflow", ...given.map((part) => quoted(String(part)))].join(" ");
}

/** The same as a command and as a request. */
export function Same({ cli, request }: { cli: string; request?: { method: string; path: string; body?: unknown } }) {
  const curl = request && curlOf(request);
  return (
    <details class="same">
      <summary>The same as a command</summary>
      <p>
        <code>{cli}</code>
        <Copy text={cli} what="the command" />
      </p>
      {curl && (
        <p>
          <code>{curl}</code>
          <Copy text={curl} what="the request" />
        </p>
      )}
    </details>
  );
}

function curlOf({ method, path, body }: { method: string; path: string; body?: unknown }): string {
  const parts = ["curl", method === "GET" ? "" : `-X ${method}`, quoted(location.origin + path)];
  parts.push(`-H "Authorization: Bearer $PUBSUBFLOW_TOKEN"`);
  if (body !== undefined) {
    parts.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`);
  }
  return parts.filter(Boolean).join(" ");
}

export interface Action {
  title: string;
  /** Word of the button. */
  verb: string;
  role: "viewer" | "operator" | "admin";
  /** What a role on some DAGs or datasets is to be on. */
  about?: About;
  danger?: boolean;
  wide?: boolean;
  close: () => void;
  cli: string;
  request: { method: string; path: string; body?: unknown };
  /** Does it; the returned sentence says what happened. */
  act: () => Promise<string>;
  /** What would happen. */
  children?: ComponentChildren;
  ready?: boolean;
}

/** A dialog that does something. */
export function ActionDialog(props: Action) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>();
  const reason = lacking(props.role, props.about);
  const submit = async (event: Event) => {
    event.preventDefault();
    if (busy || reason || props.ready === false) return;
    setBusy(true);
    setError(undefined);
    try {
      say(await props.act());
      props.close();
    } catch (fault) {
      setError(fault);
    } finally {
      setBusy(false);
    }
  };
  return (
    <Dialog title={props.title} close={props.close} wide={props.wide ?? false}>
      <form onSubmit={submit}>
        {props.children}
        {error !== undefined && <Problem error={messageOf(error)} />}
        {reason && <p class="reason">{reason}</p>}
        <Same cli={props.cli} request={props.request} />
        <footer>
          <button type="button" class="quiet" onClick={props.close}>
            Back
          </button>
          <button
            type="submit"
            class={props.danger ? "danger" : "primary"}
            disabled={busy || Boolean(reason) || props.ready === false}
          >
            {busy ? "Working…" : props.verb}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

/** A button that opens an action's dialog. */
export function ActionButton(props: {
  name: string;
  keys?: string;
  danger?: boolean;
  primary?: boolean;
  disabled?: string | false;
  dialog: (close: () => void) => ComponentChildren;
}) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button
        type="button"
        class={props.danger ? "danger-quiet" : props.primary ? "primary" : ""}
        disabled={Boolean(props.disabled)}
        title={props.disabled || (props.keys ? `Key: ${props.keys}` : undefined)}
        data-keys={props.keys}
        onClick={() => setOpen(true)}
      >
        {props.name}
      </button>
      {open && props.dialog(() => setOpen(false))}
    </>
  );
}
