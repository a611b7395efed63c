/** Output that is too long to be kept whole: what is in view is loaded, and the server finds text in all of it. */
import type { LogLineView, OutputLines, TaskDetail } from "#routes";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { call } from "../core/api";
import { grouped } from "../core/numbers";
import { useResource } from "../core/resource";
import { address, setQuery } from "../core/router";
import { Problem } from "../ui/parts";
import { Line } from "./output-line";
import { taskName } from "./run";
import { firstOf, heightOf, placeOf } from "./scroll-map";

const ROW = 18;
export const PART = 500; // lines of a request
const KEPT = 40; // parts in memory
const MOST_FOUND = 10_000;
const WAIT_MS = 60; // while it is scrolled fast, nothing is asked for
const LIVE_MS = 1000;
const LATE_MS = 30_000; // lines may be recorded a moment after the end of the attempt

interface Of {
  task: TaskDetail;
  attempt: number;
  live: boolean;
  /** A part of it that is here already. */
  head?: OutputLines | undefined;
}

/** The parts of an output that were loaded, the last used ones. */
class Parts {
  private readonly parts = new Map<number, readonly LogLineView[]>();

  /** @param head What was loaded first, whose first line need not be that of a part. */
  constructor(private readonly head?: OutputLines) {}

  line(number: number): LogLineView | undefined {
    return this.parts.get(Math.floor(number / PART))?.[number % PART] ?? this.head?.items[number - this.head.first];
  }

  /** Return the parts of which lines are lacking, from one number up to another. */
  lacking(first: number, end: number): number[] {
    const found = new Set<number>();
    for (let number = first; number < end; number++) if (!this.line(number)) found.add(Math.floor(number / PART));
    return [...found];
  }

  keep(part: number, lines: readonly LogLineView[]): void {
    this.parts.delete(part);
    this.parts.set(part, lines);
    for (const old of this.parts.keys()) {
      if (this.parts.size <= KEPT) break;
      this.parts.delete(old);
    }
  }
}

export function LongOutput({ task, attempt, live, head }: Of) {
  const path = { run_id: task.run_id, task: taskName(task) };
  const query = { attempt: attempt || undefined };
  const wanted = Number(address.peek().query.get("line") ?? Number.NaN);
  const box = useRef<HTMLDivElement>(null);
  const [parts] = useState(() => new Parts(head));
  const [total, setTotal] = useState(head?.total ?? 0);
  const [top, setTop] = useState(wanted >= 0 ? 0 : Math.max(0, heightOf(total, ROW) - innerHeight));
  const [height, setHeight] = useState(600);
  const [error, setError] = useState<Error>();
  const [, loaded] = useState(0);
  const [marked, mark] = useState(wanted);
  const follow = useRef(!(wanted >= 0));
  const whole = heightOf(total, ROW);
  const rows = Math.ceil(height / ROW) + 1;
  const first = firstOf(top, total, height, ROW);

  const load = async (asked: { first?: number; last?: number }, signal: AbortSignal): Promise<OutputLines | undefined> => {
    try {
      const found = await call("GET /api/v1/runs/{run_id}/tasks/{task}/logs/lines", { path, query: { ...query, ...asked, limit: asked.last ? undefined : PART } }, signal);
      setError(undefined);
      return found;
    } catch (fault) {
      if (!signal.aborted) setError(fault as Error);
      return undefined;
    }
  };

  // How long it is, and as long as it grows again.
  useEffect(() => {
    const control = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const until = Date.now() + LATE_MS;
    const ask = async () => {
      const found = await load({ last: 1 }, control.signal);
      if (found) setTotal(found.total);
      const open = live && !(found?.whole && Date.now() > until);
      if (open && !control.signal.aborted) timer = setTimeout(ask, LIVE_MS);
    };
    if (!head) void ask();
    else if (live) timer = setTimeout(ask, LIVE_MS);
    return () => {
      control.abort();
      clearTimeout(timer);
    };
  }, [path.run_id, path.task, attempt, live]);

  const go = (line: number) => {
    const shown = box.current;
    if (!shown) return;
    follow.current = false;
    shown.scrollTop = placeOf(Math.max(0, line - Math.floor(rows / 3)), total, height, ROW);
    setTop(shown.scrollTop);
  };

  // At first the line that the address names, else the end: there stands why it failed.
  useLayoutEffect(() => {
    const shown = box.current;
    if (!shown || !total) return;
    setHeight(shown.clientHeight);
    if (follow.current) shown.scrollTop = shown.scrollHeight;
    else if (wanted >= 0 && top === 0) go(wanted);
    setTop(shown.scrollTop);
  }, [total]);

  useEffect(() => {
    const lacking = parts.lacking(first, Math.min(first + rows, total));
    if (!lacking.length) return;
    const control = new AbortController();
    const timer = setTimeout(async () => {
      for (const part of lacking) {
        const found = await load({ first: part * PART }, control.signal);
        if (!found) return;
        parts.keep(part, found.items);
        loaded((count) => count + 1);
      }
    }, WAIT_MS);
    return () => {
      clearTimeout(timer);
      control.abort();
    };
  }, [first, rows, total]);

  const step = (event: KeyboardEvent) => {
    const shown = box.current!;
    const to = { Home: 0, End: shown.scrollHeight }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    shown.scrollTop = to;
  };

  return (
    <>
      <Find path={path} attempt={query.attempt} total={total} go={go} mark={mark} from={() => first} />
      {error && <Problem error={error} />}
      <div
        class="output long"
        ref={box}
        tabIndex={0}
        role="region"
        aria-label="Output of the task"
        onKeyDown={step}
        onScroll={() => {
          const shown = box.current;
          if (!shown) return;
          follow.current = shown.scrollHeight - shown.scrollTop - shown.clientHeight < ROW;
          setTop(shown.scrollTop);
        }}
      >
        <div class="canvas" style={{ height: `${whole}px` }}>
          <pre style={{ transform: `translateY(${Math.max(0, Math.min(top, whole - rows * ROW))}px)` }}>
            {Array.from({ length: Math.max(0, Math.min(rows, total - first)) }, (_, row) => {
              const number = first + row;
              return (
                <span key={row} class={`numbered ${number === marked ? "marked" : ""}`}>
                  <a class="n" tabIndex={-1} href={`${location.pathname}?${withLine(number)}`} onClick={() => mark(number)}>
                    {number + 1}
                  </a>
                  {lineOf(parts.line(number))}
                </span>
              );
            })}
          </pre>
        </div>
      </div>
    </>
  );
}

function withLine(number: number): string {
  const query = new URLSearchParams(address.peek().query);
  query.set("line", String(number));
  return query.toString();
}

function lineOf(line: LogLineView | undefined) {
  return line ? <Line line={line} /> : <span class="l faint">…</span>;
}

/** Ctrl F, for what the browser cannot find as it is not here. */
function Find(props: {
  path: { run_id: string; task: string };
  attempt: number | undefined;
  total: number;
  go: (line: number) => void;
  mark: (line: number) => void;
  from: () => number;
}) {
  const { path, attempt } = props;
  const text = address.value.query.get("find") ?? "";
  const field = useRef<HTMLInputElement>(null);
  const [at, setAt] = useState<number>();
  const found = useResource(`find ${path.run_id} ${path.task} ${attempt} ${text}`, async (signal) =>
    text ? call("GET /api/v1/runs/{run_id}/tasks/{task}/logs/find", { path, query: { attempt, text, limit: MOST_FOUND } }, signal) : undefined,
  );
  const lines = found.value?.lines ?? [];
  const show = (index: number) => {
    const line = lines[index];
    if (line === undefined) return;
    setAt(index);
    props.mark(line);
    props.go(line);
    setQuery({ line: String(line) });
  };
  const move = (by: number) => lines.length && show(((at ?? (by > 0 ? -1 : 0)) + by + lines.length) % lines.length);
  useEffect(() => {
    if (!lines.length) return setAt(undefined);
    // The one that the address names, else the first one from what is in view on.
    const named = lines.indexOf(Number(address.peek().query.get("line") ?? -1));
    if (named >= 0) return show(named);
    const next = lines.findIndex((line) => line >= props.from());
    show(next < 0 ? 0 : next);
  }, [found.value]);
  useEffect(() => {
    const take = (event: KeyboardEvent) => {
      const asks = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f" && !event.shiftKey && !event.altKey;
      // A second time is for the browser's own.
      if (!asks || document.activeElement === field.current || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      field.current!.focus();
      field.current!.select();
    };
    addEventListener("keydown", take);
    return () => removeEventListener("keydown", take);
  }, []);
  const { count } = found.value ?? {};
  return (
    <form
      class="filters find"
      role="search"
      aria-label="Find in the output"
      onSubmit={(event) => {
        event.preventDefault();
        const typed = field.current!.value;
        if (typed !== text) setQuery({ find: typed, line: undefined });
        else move(1);
      }}
      onKeyDown={(event) => {
        if (event.key === "Enter" && event.shiftKey) {
          event.preventDefault();
          move(-1);
        }
      }}
    >
      <label class="line">
        Find
        <input ref={field} type="search" defaultValue={text} placeholder="Ctrl F" />
      </label>
      <button type="submit">{text ? "Next" : "Find"}</button>
      <button type="button" disabled={!lines.length} onClick={() => move(-1)}>
        Previous
      </button>
      <span class="faint" role="status">
        {found.loading && text
          ? `Looking through ${grouped(props.total)} lines…`
          : count === undefined
            ? `${grouped(props.total)} lines, loaded as they come into view`
            : count === 0
              ? "No line has it."
              : `${(at ?? 0) + 1} of ${grouped(count)} lines${count > lines.length ? `, of which the first ${grouped(lines.length)} are reached` : ""}`}
      </span>
      {found.error && <Problem error={found.error} />}
    </form>
  );
}
