/** The output of a task as text, so that the browser's own search, selection and paging work. */
import type { LogLineView, OutputLines, TaskDetail } from "#routes";
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { call, request, urlOf } from "../core/api";
import { address } from "../core/router";
import { Check } from "../ui/check";
import { Empty, Problem } from "../ui/parts";
import { LongOutput, PART } from "./long-output";
import { Line } from "./output-line";
import { ENDED, taskName } from "./run";

const CHUNK = 200; // lines; each is laid out only when it is near the view
const MOST = 20_000; // lines that are kept whole; of more what is in view is loaded
const SKIPPED = 3; // chunks that are laid out wherever they are
const LAST = 200; // lines that are shown first: the end says why it failed
const BATCH_MS = 100;
const LATE_MS = 30_000;

type Phase = "loading" | "following" | "whole" | "long";

const DONE = new Set([...ENDED, "skipped", "upstream_failed"]);

/** A part of an output, and how long it is; undefined if that could not be found out. */
type Beginning = Promise<OutputLines | undefined>;

/** Return the lines that the address of the view names, else the last ones, of an attempt or the latest one. */
export function askForBeginning(run: string, task: string, attempt: number | undefined): Beginning {
  const line = Number(address.peek().query.get("line") ?? Number.NaN);
  const part = line >= 0 ? { first: Math.floor(line / PART) * PART, limit: PART } : { last: LAST };
  const asked = { path: { run_id: run, task }, query: { attempt, ...part } };
  return call("GET /api/v1/runs/{run_id}/tasks/{task}/logs/lines", asked).catch(() => undefined);
}

interface Of {
  task: TaskDetail;
  attempt: number;
  /** What was asked for while the task was loaded, of this attempt. */
  beginning?: Beginning | undefined;
}

export function Output({ task, attempt, beginning }: Of) {
  const [lines, setLines] = useState<readonly LogLineView[]>([]);
  const [phase, setPhase] = useState<Phase>("loading");
  const [error, setError] = useState<Error>();
  const [wrap, setWrap] = useState(localStorage.getItem("psf-wrap") === "on");
  const [follow, setFollow] = useState(true);
  const [unseen, setUnseen] = useState(0);
  const box = useRef<HTMLDivElement>(null);
  const latest = attempt === task.attempt || !attempt;
  const live = latest && !DONE.has(task.state);
  // Its last lines may be recorded a moment after its end: the stream waits for them.
  const opened = useRef(Date.now());
  const followed = live || (latest && Boolean(task.ended_at) && Date.parse(task.ended_at!) > opened.current - LATE_MS);
  const path = { run_id: task.run_id, task: taskName(task) };
  const route = "GET /api/v1/runs/{run_id}/tasks/{task}/logs";
  const query = { attempt: attempt || undefined };

  const [head, setHead] = useState<OutputLines>();

  useLayoutEffect(() => {
    setLines([]);
    setError(undefined);
    setPhase("loading");
    setUnseen(0);
    setHead(undefined);
    const control = new AbortController();
    let source: EventSource | undefined;
    let batch: LogLineView[] = [];
    let known = 0; // lines that are there at least: until they are here the last ones are shown
    let begun = false;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      clearTimeout(timer);
      timer = undefined;
      const more = batch;
      batch = [];
      setLines((before) => (begun ? [...before, ...more] : more));
      begun = true;
    };
    let count = 0;
    const add = (line: LogLineView) => {
      if (control.signal.aborted) return;
      batch.push(line);
      if (++count > MOST) {
        stop();
        setPhase("long");
      } else if (count >= known) timer ??= setTimeout(flush, BATCH_MS);
      // What fills the view is shown at once, however much follows.
      if (!known && count === LAST) flush();
    };
    const whole = () => {
      if (control.signal.aborted) return;
      flush();
      setPhase("whole");
    };
    const follow = () => {
      source = new EventSource(urlOf(route, { path, query: { ...query, follow: true } }));
      source.onopen = () => setPhase("following");
      source.addEventListener("line", (message) => add(JSON.parse((message as MessageEvent<string>).data)));
      source.addEventListener("end", () => {
        source?.close();
        whole();
      });
    };
    const start = async () => {
      const found = await (beginning ?? askForBeginning(task.run_id, path.task, query.attempt));
      if (control.signal.aborted) return;
      if (found && found.total > MOST) {
        setHead(found);
        return setPhase("long");
      }
      if (found?.items.length) {
        known = found.total;
        setLines(found.items);
      }
      if (followed) return follow();
      // Of most there is no more.
      if (found?.whole && found.items.length === found.total) return setPhase("whole");
      try {
        await readLines(request(route, { path, query }, control.signal), add);
        whole();
      } catch (fault) {
        if (!control.signal.aborted) setError(fault as Error);
      }
    };
    void start();
    function stop() {
      control.abort();
      source?.close();
      clearTimeout(timer);
    }
    return stop;
  }, [task.run_id, path.task, attempt, followed]);

  useLayoutEffect(() => {
    const shown = box.current;
    if (!shown || phase === "whole") return;
    if (follow) shown.scrollTop = shown.scrollHeight;
    else setUnseen((before) => before + 1);
  }, [lines]);

  const chunks = useMemo(() => {
    const made: (readonly LogLineView[])[] = [];
    for (let at = 0; at < lines.length; at += CHUNK) made.push(lines.slice(at, at + CHUNK));
    return made;
  }, [lines]);

  const onScroll = () => {
    const shown = box.current;
    if (!shown) return; // what was scrolled has given way to what is too long for it
    const atEnd = shown.scrollHeight - shown.scrollTop - shown.clientHeight < 40;
    setFollow(atEnd);
    if (atEnd) setUnseen(0);
  };

  return (
    <>
      <div class="filters">
        <Check
          label="Wrap lines"
          value={wrap}
          set={(on) => {
            setWrap(on);
            localStorage.setItem("psf-wrap", on ? "on" : "off");
          }}
        />
        <a class="button" href={urlOf(route, { path, query })} download={`${path.task}.ndjson`} target="_blank" rel="noreferrer">
          Download
        </a>
        {phase !== "long" && (
          <span class="faint" role="status">
            {lines.length} lines{live ? ", and more as they come" : ""}
          </span>
        )}
        {live && phase !== "long" && !follow && unseen > 0 && (
          <button
            type="button"
            onClick={() => {
              setFollow(true);
              box.current!.scrollTop = box.current!.scrollHeight;
            }}
          >
            Go to the new lines
          </button>
        )}
      </div>
      {error && <Problem error={error} />}
      {phase === "long" ? (
        <LongOutput key={`${task.id} ${attempt}`} task={task} attempt={attempt} live={followed} head={head} />
      ) : lines.length > 0 ? (
        <div
          class={`output ${wrap ? "wrap" : ""} ${chunks.length > SKIPPED ? "many" : ""}`}
          ref={box}
          tabIndex={0}
          role="region"
          aria-label="Output of the task"
          onScroll={onScroll}
        >
          {chunks.map((chunk, index) => (
            <Chunk key={`${index} ${chunk.length}`} lines={chunk} />
          ))}
        </div>
      ) : (
        !error &&
        (phase !== "whole" && !live ? (
          <p class="loading">Loading the output…</p>
        ) : (
          <Empty>{live ? "It has written nothing yet." : "It wrote nothing."}</Empty>
        ))
      )}
    </>
  );
}

function Chunk({ lines }: { lines: readonly LogLineView[] }) {
  return (
    <pre>
      {lines.map((line, index) => (
        <Line key={index} line={line} />
      ))}
    </pre>
  );
}

async function readLines(opened: Promise<Response>, add: (line: LogLineView) => void): Promise<void> {
  const reader = (await opened).body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop()!;
    for (const part of parts) if (part) add(JSON.parse(part) as LogLineView);
  }
  if (rest) add(JSON.parse(rest) as LogLineView);
}
