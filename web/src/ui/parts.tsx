/** Small parts that all views are made of. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { messageOf } from "../core/api";
import { lettersOn } from "../core/keys";
import { absolute, between, duration, relative, timeFor } from "../core/time";

import type { Selection } from "./selection";

/** A state: a shape, a word and a colour, of which any one suffices. */
export function State({ name, word }: { name: string; word?: string }) {
  return (
    <span class={`state s-${name}`}>
      <Shape name={name} />
      {word ?? (name === "none" ? "not started" : name.replaceAll("_", " "))}
    </span>
  );
}

/** What is drawn in the ring of a state, on 16 × 16. */
export const SHAPES: Record<string, string> = {
  success: "M4 8.5 7 11.5 12.5 5",
  failed: "M4.5 4.5 11.5 11.5M11.5 4.5 4.5 11.5",
  upstream_failed: "M8 3v6M5 7l3 3 3-3M4.5 12.5h7",
  running: "M5.5 4 12 8l-6.5 4z",
  queued: "M4 5h8M4 8h8M4 11h8",
  ready: "M8 4v4l3 2",
  deferred: "M6 4.5v7M10 4.5v7",
  up_for_retry: "M11.5 6A4 4 0 1 0 12 9M12 4v2.5H9.5",
  skipped: "M4 4.5 8 8l-4 3.5M8.5 4.5l4 3.5-4 3.5",
  cancelled: "M4.5 8h7",
  paused: "M6 4.5v7M10 4.5v7",
  waiting: "M8 4v4l3 2",
  pending: "M8 4v4l3 2",
  consumed: "M4 8.5 7 11.5 12.5 5",
  filtered: "M3.5 4.5h9L9 9v3l-2 1V9z",
  expired: "M5.5 3.5h5L5.5 12.5h5z",
  unseen: "M4 8h1M7.5 8h1M11 8h1",
  planned: "M4 8h1M7.5 8h1M11 8h1",
  new: "M8 4.5v7M4.5 8h7",
  dead: "M4.5 4.5 11.5 11.5M11.5 4.5 4.5 11.5",
};

export function Shape({ name }: { name: string }) {
  return (
    <svg class="shape" viewBox="0 0 16 16" aria-hidden="true">
      <circle cx="8" cy="8" r="7" />
      <path d={SHAPES[name] ?? "M8 8h.01"} />
    </svg>
  );
}

/** A time, relative; its title has it in UTC and in the local zone. */
export function Ago({ at }: { at: string | null | undefined }) {
  if (!at) return <span class="faint">–</span>;
  return (
    <time dateTime={at} title={absolute(at)}>
      {relative(Date.parse(at), timeFor(Date.parse(at)))}
    </time>
  );
}

/** How long something took, or has taken until now. */
export function Took({ from, to }: { from: string | null | undefined; to: string | null | undefined }) {
  const ms = between(from, to);
  return ms === undefined ? <span class="faint">–</span> : <span class="number">{duration(ms)}</span>;
}

/** An id that one can copy. */
export function Id({ id, short = false }: { id: string; short?: boolean }) {
  return (
    <span class="id">
      <code title={id}>{short ? id.slice(-8) : id}</code>
      <Copy text={id} what="the id" />
    </span>
  );
}

export function Copy({ text, what }: { text: string; what: string }) {
  const [done, setDone] = useState(false);
  return (
    <button
      type="button"
      class="copy"
      aria-label={`Copy ${what}`}
      title={`Copy ${what}`}
      onClick={async () => {
        await navigator.clipboard.writeText(text);
        setDone(true);
        setTimeout(() => setDone(false), 1500);
      }}
    >
      <svg class="shape" viewBox="0 0 16 16" aria-hidden="true">
        <path d={done ? SHAPES.success! : "M6 6h7v7H6zM4 10H3V3h7v1"} />
      </svg>
    </button>
  );
}

export function Problem({ error, retry }: { error: unknown; retry?: () => void }) {
  return (
    <div class="problem" role="alert">
      <p>{messageOf(error)}</p>
      {retry && (
        <button type="button" onClick={retry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** Shows what is loaded: a sentence while there is nothing yet, and what went wrong. */
export function Loaded<T>(props: {
  of: { value: T | undefined; error: Error | undefined; reload: () => void };
  what: string;
  children: (value: T) => ComponentChildren;
}) {
  const { value, error, reload } = props.of;
  return (
    <>
      {error && <Problem error={error} retry={reload} />}
      {value !== undefined
        ? props.children(value)
        : !error && (
            <p class="loading" role="status">
              Loading {props.what}…
            </p>
          )}
    </>
  );
}

export function Empty({ children }: { children: ComponentChildren }) {
  return <div class="empty">{children}</div>;
}

export function Json({ value, label }: { value: unknown; label: string }) {
  const text = JSON.stringify(value, null, 2) ?? "null";
  return (
    <div class="json">
      {/* biome-ignore lint: it scrolls, so keys have to reach it */}
      <pre tabIndex={0} role="region" aria-label={label}>
        {text}
      </pre>
      <Copy text={text} what={label} />
    </div>
  );
}

/** Facts about one thing, as terms and descriptions. */
export function Facts({ of }: { of: readonly (readonly [string, ComponentChildren])[] }) {
  const shown = of.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return (
    <dl class="facts">
      {shown.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export interface Column<T> {
  name: string;
  show: (row: T) => ComponentChildren;
  /** `wide` takes what is left, `right` is for numbers. */
  kind?: "wide" | "right";
  /** Left out where there is little room. */
  minor?: boolean;
}

/** A table; up and down move between the links of its rows. */
export function Table<T>(props: {
  label: string;
  rows: readonly T[];
  columns: readonly Column<T>[];
  id: (row: T) => string;
  more?: (() => void) | undefined;
  /** It has not all there is, and what is around says so. */
  uncounted?: boolean;
  selection?: Selection;
}) {
  const { selection } = props;
  const body = useRef<HTMLTableSectionElement>(null);
  const move = (event: KeyboardEvent) => {
    const box = event.target instanceof Element && event.target.closest("tr")?.querySelector<HTMLInputElement>("td.box input");
    if (event.key === "x" && box && lettersOn.value && !(event.target as Element).closest("dialog")) {
      event.preventDefault();
      box.click();
      return;
    }
    const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    const row = event.target instanceof Element ? event.target.closest("tr") : null;
    // A dialog of a row is inside it.
    if (!step || !row || (event.target as Element).closest("dialog, input:not([type=checkbox]), select")) return;
    const next = step > 0 ? row.nextElementSibling : row.previousElementSibling;
    const link = next?.querySelector<HTMLElement>(
      (event.target as Element).matches("td.box input") ? "td.box input" : "a, button",
    );
    if (!link) return;
    event.preventDefault();
    link.focus();
  };
  return (
    <div class="table">
      <table aria-label={props.label}>
        <thead>
          <tr>
            {selection && (
              <th scope="col" class="box">
                <input
                  type="checkbox"
                  aria-label="Select all that are shown"
                  checked={props.rows.length > 0 && props.rows.every((row) => selection.chosen.has(props.id(row)))}
                  onChange={(event) => selection.set(event.currentTarget.checked ? props.rows.map(props.id) : [])}
                />
              </th>
            )}
            {props.columns.map((column) => (
              <th key={column.name} scope="col" class={classOf(column)}>
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody ref={body} onKeyDown={move}>
          {props.rows.map((row) => (
            <tr key={props.id(row)}>
              {selection && (
                <td class="box">
                  <input
                    type="checkbox"
                    aria-label={`Select ${props.id(row)}`}
                    checked={selection.chosen.has(props.id(row))}
                    onChange={() => selection.toggle(props.id(row))}
                  />
                </td>
              )}
              {props.columns.map((column) => (
                <td key={column.name} class={classOf(column)} data-label={column.name}>
                  {column.show(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {!props.uncounted && (
        <p class="count">
          {props.rows.length} shown
          {props.more ? (
            <>
              , there are more.{" "}
              <button type="button" onClick={props.more}>
                Show more
              </button>
            </>
          ) : (
            ", that is all."
          )}
        </p>
      )}
    </div>
  );
}

function classOf<T>(column: Column<T>): string {
  return [column.kind, column.minor && "minor"].filter(Boolean).join(" ");
}

/** Sets the title of the page, and moves the focus to a new view's heading. */
export function Heading({ title, children }: { title: string; children?: ComponentChildren }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useLayoutEffect(() => {
    document.title = `${title} · pubsubflow`;
  }, [title]);
  return (
    <div class="heading">
      <h1 tabIndex={-1} ref={heading}>
        {title}
      </h1>
      {children}
    </div>
  );
}

export interface Tab {
  id: string;
  name: string;
  href: string;
}

/** Tabs that are links, as each has its own address. */
export function Tabs({ label, tabs, now }: { label: string; tabs: readonly Tab[]; now: string }) {
  return (
    <nav class="tabs" aria-label={label}>
      {tabs.map((tab) => (
        <a key={tab.id} href={tab.href} aria-current={tab.id === now ? "page" : undefined}>
          {tab.name}
        </a>
      ))}
    </nav>
  );
}
