/** The timeline of a run: when its tasks were queued, ran, waited and paused. */
import type { RunTimeline, TimelineLane, TimelineSpan, TimelineTask } from "#routes";
import { useMemo, useState } from "preact/hooks";
import { grouped } from "../core/numbers";
import type { Resource } from "../core/resource";
import { setQuery, to } from "../core/router";
import { duration, now } from "../core/time";
import { type Bar, type Lane, Lanes, moment } from "../graph/lanes";
import { Empty, Loaded, State } from "../ui/parts";
import { ONE_BY_ONE } from "./lazy";

const LISTED = 50; // lanes of the list at first
const ENDED = new Set(["success", "failed", "cancelled"]);

export interface Loading {
  whole: RunTimeline;
  /** Of the mapped task that is unfolded. */
  part: RunTimeline | undefined;
}

/** Its data is loaded by its caller, while this code is loaded. */
export function Timeline({ of }: { of: Resource<Loading> }) {
  return (
    <Loaded of={of} what="the timeline">
      {({ whole, part }) =>
        whole.lanes.length ? (
          <Shown run={whole} unfolded={part?.lanes[0]} unfold={(task) => setQuery({ each: task })} />
        ) : (
          <Empty>{whole.state === "queued" ? "It waits in line: a limit of active runs is reached." : "No task of it has become ready."}</Empty>
        )
      }
    </Loaded>
  );
}

function Shown(props: { run: RunTimeline; unfolded: TimelineLane | undefined; unfold: (task: string | undefined) => void }) {
  const { run, unfolded, unfold } = props;
  // What lasts grows while one looks, once a second.
  const until = ENDED.has(run.state) && run.ended_at ? moment(run.ended_at) : now.value;
  const lanes = useMemo(() => allOf(run, unfolded, until), [run, unfolded, until]);
  const folded = run.lanes.filter((lane) => lane.band);
  return (
    <>
      {folded.length > 0 && (
        <div class="line tools">
          <label>
            One by one:{" "}
            <select value={unfolded?.task_id ?? ""} onChange={(event) => unfold(event.currentTarget.value || undefined)}>
              <option value="">none</option>
              {folded.map((lane) => (
                <option key={lane.task_id}>{lane.task_id}</option>
              ))}
            </select>
          </label>
          {unfolded && unfolded.instances! > ONE_BY_ONE && (
            <span class="faint">
              the first {ONE_BY_ONE} of {grouped(unfolded.instances!)}
            </span>
          )}
        </div>
      )}
      <Lanes label="Tasks by time" lanes={lanes} />
      {run.next != null && <p class="faint">These are the first {run.lanes.length} tasks.</p>}
      <List run={run} until={until} />
    </>
  );
}

function allOf(run: RunTimeline, unfolded: TimelineLane | undefined, until: number): Lane[] {
  const lanes: Lane[] = [];
  const created = moment(run.created_at);
  const started = run.started_at ? moment(run.started_at) : until;
  if (started > created) {
    lanes.push({
      key: "run",
      name: "the run itself",
      bars: [{ key: "queued", start: created, end: started, kind: "queued", name: "The run waited for another one to end" }],
    });
  }
  for (const lane of run.lanes) {
    lanes.push(...lanesOf(run, lane, until));
    if (unfolded && lane.task_id === unfolded.task_id) {
      for (const task of unfolded.tasks ?? []) lanes.push(laneOf(run, unfolded, task, until));
    }
  }
  return lanes;
}

function lanesOf(run: RunTimeline, lane: TimelineLane, until: number): Lane[] {
  const tasks = lane.tasks ?? [];
  if (!lane.band) return tasks.map((task) => laneOf(run, lane, task, until));
  const { start, end, running } = lane.band;
  const first = moment(start);
  const part = (moment(end) - first) / running.length;
  const most = Math.max(1, ...running);
  const state = worst(lane);
  const bars: Bar[] = running.flatMap((count, index) =>
    count ? [{ key: String(index), start: first + index * part, end: first + (index + 1) * part, kind: "band" as const, state, share: count / most, name: `${lane.task_id}: ${count} at once` }] : [],
  );
  const href = `${to("runs", run.run_id)}?state=${state}`;
  return [{ key: lane.task_id, name: lane.task_id, href, note: `×${grouped(lane.instances!)}`, bars }];
}

function laneOf(run: RunTimeline, lane: TimelineLane, task: TimelineTask, until: number): Lane {
  const name = task.map_index == null ? lane.task_id : `${lane.task_id}.${task.map_index}`;
  const href = to("runs", run.run_id, "tasks", name);
  const bars = task.spans.map((span, index): Bar => {
    const start = moment(span.start);
    const end = span.end ? moment(span.end) : Math.max(start, until);
    const kind = span.kind === "running" ? "task" : span.kind;
    return {
      key: String(index),
      start,
      end,
      kind,
      name: `${name}, ${wordsOf(span)}`,
      ...(span.state && { state: span.state }),
      ...(span.kind === "running" && { href: `${href}${span.attempt ? `?attempt=${span.attempt}` : ""}` }),
    };
  });
  return { key: name, name, href, bars };
}

function wordsOf(span: TimelineSpan): string {
  if (span.kind === "queued") return "queued for a worker";
  if (span.kind === "pause") return "paused before it was tried again";
  if (span.kind === "waiting") return span.label ? `waited for ${span.label}` : "waited";
  return `attempt ${span.attempt}: ${(span.state ?? "running").replaceAll("_", " ")}`;
}

const TELLING = ["failed", "running", "up_for_retry", "deferred", "queued", "ready", "cancelled", "success", "skipped"];

function worst(lane: TimelineLane): string {
  return TELLING.find((each) => lane.states?.[each]) ?? "success";
}

/** The same in a list. */
function List({ run, until }: { run: RunTimeline; until: number }) {
  const [all, setAll] = useState(false);
  const shown = all ? run.lanes : run.lanes.slice(0, LISTED);
  return (
    <details class="outline" open>
      <summary>As a list</summary>
      <ul class="tree" aria-label="Tasks by time, as a list">
        {shown.map((lane) => (
          <li key={lane.task_id}>
            <div class="line">
              <strong>{lane.task_id}</strong>
              {lane.instances! > 1 || lane.band
                ? Object.entries(lane.states ?? {}).map(([state, count]) => (
                    <span key={state}>
                      {grouped(count)} <State name={state} />
                    </span>
                  ))
                : null}
              {lane.median_seconds != null && lane.instances! > 1 && (
                <span class="faint number">
                  median {duration(lane.median_seconds * 1000)}, longest {duration((lane.longest_seconds ?? 0) * 1000)}
                </span>
              )}
            </div>
            <ul>
              {(lane.tasks ?? []).map((task) => (
                <TaskLine key={task.map_index} run={run} lane={lane} task={task} until={until} />
              ))}
            </ul>
          </li>
        ))}
      </ul>
      {shown.length < run.lanes.length && (
        <button type="button" class="more" onClick={() => setAll(true)}>
          List all {grouped(run.lanes.length)}
        </button>
      )}
    </details>
  );
}

function TaskLine({ run, lane, task, until }: { run: RunTimeline; lane: TimelineLane; task: TimelineTask; until: number }) {
  const name = task.map_index == null ? lane.task_id : `${lane.task_id}.${task.map_index}`;
  return (
    <li>
      <div class="line">
        <State name={task.state} />
        <a href={to("runs", run.run_id, "tasks", name)}>{name}</a>
        {task.spans.map((span, index) => (
          <span key={index} class="faint number">
            {wordsOf(span)} {duration((span.end ? moment(span.end) : until) - moment(span.start))}
            {index < task.spans.length - 1 && " →"}
          </span>
        ))}
      </div>
    </li>
  );
}
