/** The output of a task as text, so that the browser's own search, selection and paging work. */
import type { LogLineView, TaskDetail } from "#routes";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { request, urlOf } from "../core/api";
import { Empty, Problem } from "../ui/parts";
import { Check } from "../ui/check";
import { lazy } from "../core/lazy";
import { Line } from "./output-line";
import { ENDED, taskName } from "./run";

const LongOutput = lazy<{ task: TaskDetail; attempt: number; live: boolean }>(() =>
  import("./long-output").then((found) => found.LongOutput),
);

const CHUNK = 200; // lines; each is laid out only when it is near the view
const MOST = 20_000; // lines that are kept whole; of more what is in view is loaded
const SKIPPED = 3; // chunks that are laid out wherever they are
const BATCH_MS = 100;
const LATE_MS = 30_000;

type Phase = "loading" | "following" | "whole" | "long";

/** What follows when the last line is here: what is too long stays so. */
function ended(before: Phase): Phase {
  return before === "long" ? before : "whole";
}
const DONE = new Set([...ENDED, "skipped", "upstream_failed"]);

export function Output({ task, attempt }: { task: TaskDetail; attempt: number }) {
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

  useEffect(() => {
    setLines([]);
    setError(undefined);
    setPhase("loading");
    setUnseen(0);
    let batch: LogLineView[] = [];
    let count = 0;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const flush = () => {
      clearTimeout(timer);
      timer = undefined;
      const more = batch;
      batch = [];
      count += more.length;
      if (count > MOST) {
        setPhase("long");
        stop();
      } else setLines((before) => [...before, ...more]);
    };
    const add = (line: LogLineView) => {
      batch.push(line);
      timer ??= setTimeout(flush, BATCH_MS);
      // What fills the view is shown at once, however much follows.
      if (!count && batch.length === CHUNK) flush();
    };
    const control = new AbortController();
    let source: EventSource | undefined;
    if (followed) {
      source = new EventSource(urlOf(route, { path, query: { ...query, follow: true } }));
      source.onopen = () => setPhase("following");
      source.addEventListener("line", (message) => add(JSON.parse((message as MessageEvent<string>).data)));
      source.addEventListener("end", () => {
        source?.close();
        clearTimeout(timer);
        flush();
        setPhase(ended);
      });
    } else {
      readLines(request(route, { path, query }, control.signal), add).then(
        () => {
          clearTimeout(timer);
          flush();
          setPhase(ended);
        },
        (fault: Error) => control.signal.aborted || setError(fault),
      );
    }
    function stop() {
      control.abort();
      source?.close();
      clearTimeout(timer);
    }
    return stop;
  }, [task.run_id, path.task, attempt, followed]);

  useEffect(() => {
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
        <LongOutput key={`${task.id} ${attempt}`} task={task} attempt={attempt} live={followed} />
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
