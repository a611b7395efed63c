import type { ClearedTaskView, ExplainedRun, Explanation, RunDetail, TaskView } from "#routes";
import { useLayoutEffect, useState } from "preact/hooks";
import { call, urlOf } from "../core/api";
import { bind } from "../core/keys";
import { useResource, usePages } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { Graph, type GraphNode } from "../graph/graph";
import { Check } from "../ui/check";
import { ActionButton, ActionDialog, command, quoted } from "../ui/dialog";
import { Typed } from "../ui/fields";
import { StateChips } from "../ui/state-chips";
import {
  Ago,
  Empty,
  Facts,
  Heading,
  Id,
  Json,
  Loaded,
  Problem,
  State,
  Table,
  Tabs,
  Took,
  type Column,
} from "../ui/parts";
import { StartButton } from "./start";

import { LazyTimeline, LazyTrace } from "./lazy";

export const ENDED = new Set(["success", "failed", "cancelled"]);
const TABS = ["tasks", "trace", "timeline", "graph", "why", "params"];

export function Run({ id }: { id: string }) {
  const run = useResource(
    `run ${id}`,
    (signal) => call("GET /api/v1/runs/{run_id}", { path: { run_id: id } }, signal),
    { filter: { kinds: ["run", "task"], runs: [id] } },
  );
  const shown = address.value.query.get("tab");
  const tab = TABS.includes(shown ?? "") ? shown! : "tasks";
  return (
    <>
    <Loaded of={run} what="the run">
      {(found) => (
        <>
          <Heading title={`Run of ${found.dag_id}`}>
            <State name={found.state} />
            <Actions run={found} done={run.reload} />
          </Heading>
          <Facts
            of={[
              ["DAG", <a href={to("dags", found.dag_id)}>{found.dag_id}</a>],
              ["Why", found.cause],
              ["Run", <Id id={found.run_id} />],
              ["Created", <Ago at={found.created_at} />],
              ["Waited", found.started_at && <Took from={found.created_at} to={found.started_at} />],
              ["Took", <Took from={found.started_at} to={found.ended_at} />],
              ["Partition", found.partition],
              ["Logical time", found.logical_time && <Ago at={found.logical_time} />],
              ["Version", `v${found.version}`],
              ["Cleared", found.cleared ? `${found.cleared} times` : null],
              ["Tags", found.tags?.join(", ")],
              ["Note", found.note],
            ]}
          />
          {found.error && (
            <div class="panel bad">
              <strong>{found.error}</strong>
            </div>
          )}
          <Tabs
            label="Parts of the run"
            now={tab}
            tabs={[
              { id: "tasks", name: "Tasks", href: to("runs", id) },
              { id: "trace", name: "Trace", href: `${to("runs", id)}?tab=trace` },
              { id: "timeline", name: "Timeline", href: `${to("runs", id)}?tab=timeline` },
              { id: "graph", name: "Graph", href: `${to("runs", id)}?tab=graph` },
              { id: "why", name: "Why it ran", href: `${to("runs", id)}?tab=why` },
              { id: "params", name: "Params", href: `${to("runs", id)}?tab=params` },
            ]}
          />
          {tab === "params" && <Params run={found} />}
        </>
      )}
    </Loaded>
    {/* These begin with its id alone, so they load beside it. */}
    {tab === "tasks" && <Tasks id={id} run={run.value} />}
    {tab === "graph" && <RunGraph id={id} run={run.value} />}
    {(run.value || !run.error) && tab === "why" && <Why id={id} />}
    {(run.value || !run.error) && tab === "trace" && <LazyTrace of={{ kind: "run", id }} />}
    {(run.value || !run.error) && tab === "timeline" && <LazyTimeline id={id} />}
    </>
  );
}

export function taskName(task: { task_id: string; map_index?: number | null }): string {
  return task.map_index == null ? task.task_id : `${task.task_id}.${task.map_index}`;
}

const COLUMNS: readonly Column<TaskView>[] = [
  { name: "State", show: (task) => <State name={task.state} /> },
  { name: "Task", show: (task) => <a href={to("runs", task.run_id, "tasks", taskName(task))}>{taskName(task)}</a> },
  {
    name: "What happened",
    kind: "wide",
    show: (task) =>
      task.error ? (
        <>
          <strong>{task.error.type}</strong>: {task.error.message}
        </>
      ) : task.waits_for ? (
        `waits for ${task.waits_for}`
      ) : task.length != null ? (
        `${task.length} elements`
      ) : (
        ""
      ),
  },
  { name: "Attempt", kind: "right", show: (task) => task.attempt || "", minor: true },
  { name: "Worker", show: (task) => task.worker ?? "", minor: true },
  { name: "Started", show: (task) => <Ago at={task.started_at} />, minor: true },
  { name: "Took", kind: "right", show: (task) => <Took from={task.started_at} to={task.ended_at} /> },
];

/** Its tasks, which are loaded with the run, and shown as soon as it is there. */
function Tasks({ id, run }: { id: string; run: RunDetail | undefined }) {
  const states = address.value.query.getAll("state");
  const task = address.value.query.get("task") ?? undefined;
  const tasks = usePages(
    `tasks ${id} ${states} ${task}`,
    (wanted, signal) =>
      call("GET /api/v1/runs/{run_id}/tasks", { path: { run_id: id }, query: { state: states, task, ...wanted } as never }, signal),
    { main: true, filter: { kinds: ["run", "task"], runs: [id] } },
  );
  if (!run) return null;
  return (
    <>
      <div class="filters" role="group" aria-label="Filters">
        <StateChips of={Object.entries(run.tasks)} chosen={states} />
        {(task || Object.keys(run.tasks).length > 0) && (
          <Typed label="Task" value={task} set={(text) => setQuery({ task: text })} />
        )}
      </div>
      <Loaded of={tasks} what="tasks">
        {(found) => {
          // What has failed is what people look for; the rest stays in the order of the graph.
          const failed = found.filter((task) => task.state === "failed");
          const rows = [...failed, ...found.filter((task) => task.state !== "failed")];
          if (!rows.length) return <Empty>No task fits these filters.</Empty>;
          return <Table label="Tasks" rows={rows} columns={COLUMNS} id={(task) => task.id} more={tasks.more} />;
        }}
      </Loaded>
    </>
  );
}

// The most telling one first: the state that a mapped task has as a whole.
const TELLING = [
  "failed",
  "upstream_failed",
  "running",
  "up_for_retry",
  "deferred",
  "queued",
  "ready",
  "cancelled",
  "none",
  "success",
  "skipped",
];

/** The graph of the run with the states of its tasks, as long as its version is the one in force. */
function RunGraph({ id, run }: { id: string; run: RunDetail | undefined }) {
  const tasks = useResource(
    `graph ${id}`,
    (signal) => call("GET /api/v1/runs/{run_id}/tasks", { path: { run_id: id }, query: { limit: 1000 } }, signal),
    { filter: { kinds: ["run", "task"], runs: [id] } },
  );
  const name = run?.dag_id;
  const dag = useResource(`graph of ${name}`, async (signal) =>
    name === undefined ? undefined : call("GET /api/v1/dags/{dag_id}", { path: { dag_id: name } }, signal),
  );
  if (!run) return null;
  const found = {
    value: dag.value && tasks.value && { dag: dag.value, tasks: tasks.value.items, more: Boolean(tasks.value.next) },
    error: dag.error ?? tasks.error,
    reload: () => [dag, tasks].forEach((each) => each.reload()),
  };
  return (
    <Loaded of={found} what="the graph">
      {({ dag, tasks, more }) => {
        if (dag.version !== run.version) {
          return (
            <Empty>
              <p>
                The run has version {run.version} of the DAG, and version {dag.version} is in force: only that one
                has its graph here. The list of tasks is that of the run.
              </p>
            </Empty>
          );
        }
        const states = new Map<string, Map<string, number>>();
        for (const task of tasks) {
          const counts = states.get(task.task_id) ?? new Map<string, number>();
          counts.set(task.state, (counts.get(task.state) ?? 0) + 1);
          states.set(task.task_id, counts);
        }
        const nodes = dag.graph.map((task): GraphNode => {
          const counts = states.get(task.task_id) ?? new Map([["none", 1]]);
          const state = TELLING.find((each) => counts.has(each)) ?? "none";
          const href = task.mapped
            ? `${to("runs", run.run_id)}?state=${state}`
            : to("runs", run.run_id, "tasks", task.task_id);
          const about = task.mapped ? (
            <small>{[...counts].map(([name, count]) => `${count} ${name.replaceAll("_", " ")}`).join(", ")}</small>
          ) : (
            <State name={state} />
          );
          return { id: task.task_id, kind: "task", name: task.task_id, href, state, about };
        });
        const edges = dag.graph.flatMap((task) =>
          task.upstream.map((above) => [above, task.task_id] as const),
        );
        return (
          <>
            <Graph label={`Graph of the run of ${run.dag_id}`} nodes={nodes} edges={edges} />
            {more && <p class="faint">States are those of the first 1,000 task instances.</p>}
          </>
        );
      }}
    </Loaded>
  );
}

function Why({ id }: { id: string }) {
  const found = useResource(`explain ${id}`, (signal) =>
    call("GET /api/v1/runs/{run_id}/explain", { path: { run_id: id } }, signal),
  );
  return (
    <Loaded of={found} what="its causes">
      {(explanation) => {
        const [own] = explanation.runs;
        if (!own) return <Empty>Nothing is known of its causes.</Empty>;
        return (
          <>
            {explanation.waits?.map((each) => (
              <p key={each} class="reason">
                {each}
              </p>
            ))}
            <ul class="tree" aria-label="Causes of the run, back to the origin">
              <Cause run={own} of={explanation} seen={new Set()} />
            </ul>
            {explanation.complete === false && <p class="faint">The trail goes on further back than is shown.</p>}
          </>
        );
      }}
    </Loaded>
  );
}

/** A run, under it the events that it consumed, under each the run whose task emitted it. */
function Cause({ run, of, seen }: { run: ExplainedRun; of: Explanation; seen: ReadonlySet<string> }) {
  const { run: view } = run;
  const next = new Set([...seen, view.run_id]);
  const find = (id: string | null | undefined) => of.runs.find((each) => each.run.run_id === id);
  const starter = run.started_by;
  return (
    <li>
      <div class="line">
        <State name={view.state} />
        <a href={to("runs", view.run_id)}>
          run of <strong>{view.dag_id}</strong>
        </a>
        <span class="faint">{view.cause}</span>
        <Ago at={view.created_at} />
      </div>
      <ul>
        {run.events.map((event) => {
          const emitter = find(event.run_id);
          return (
            <li key={event.event_id}>
              <div class="line">
                <span class="chip">event</span>
                <a href={to("events", event.event_id)}>{event.dataset}</a>
                {event.partition && <span class="chip">{event.partition}</span>}
                <Ago at={event.recorded_at} />
                <span class="faint number">
                  {Math.max(0, Date.parse(view.created_at) - Date.parse(event.recorded_at))} ms before the run
                </span>
                {!event.run_id && <span class="faint">from {event.source}</span>}
                {event.pruned && <span class="faint">the run that emitted it was removed</span>}
              </div>
              {emitter && !next.has(emitter.run.run_id) && (
                <ul>
                  <Cause run={emitter} of={of} seen={next} />
                </ul>
              )}
              {event.run_id && !emitter && !event.pruned && (
                <ul>
                  <li>
                    emitted by <a href={to("runs", event.run_id)}>{event.dag_id}</a>, task {event.task_id}
                  </li>
                </ul>
              )}
            </li>
          );
        })}
        {run.more_events && <li class="faint">It consumed more events than are shown.</li>}
        {Boolean(run.pruned_events) && <li class="faint">{run.pruned_events} events were removed.</li>}
        {starter && (
          <li>
            <div class="line">
              started by task <strong>{starter.task_id}</strong> of
              <a href={to("runs", starter.run_id)}>{starter.dag_id}</a>
            </div>
          </li>
        )}
        {!run.events.length && !starter && <li class="faint">the origin: {view.cause}</li>}
      </ul>
    </li>
  );
}

function Params({ run }: { run: RunDetail }) {
  return (
    <>
      <Json value={run.params} label="Params" />
      <Facts of={[["Run key", <code>{run.run_key}</code>]]} />
      {run.callbacks?.map((each) => (
        <div class="panel" key={each.id}>
          <div class="line">
            <State name={each.state} /> {each.kind}: {each.name}
          </div>
          {each.error && <pre>{each.error}</pre>}
          {each.output && <pre>{each.output}</pre>}
        </div>
      ))}
    </>
  );
}

function Actions({ run, done }: { run: RunDetail; done: () => void }) {
  const ended = ENDED.has(run.state);
  const failed = ["failed", "cancelled", "upstream_failed"].some((state) => run.tasks[state]);
  useLayoutEffect(
    () =>
      bind({
        keys: "y",
        about: "Copy the id of the run",
        act: () => void navigator.clipboard.writeText(run.run_id),
      }),
    [run.run_id],
  );
  return (
    <div class="actions">
      <ActionButton
        name="Cancel"
        danger
        disabled={ended && "The run has ended."}
        dialog={(close) => <Cancel run={run} close={close} done={done} />}
      />
      <ActionButton
        name="Retry"
        disabled={!ended ? "The run has not ended." : !failed && "No task of it failed."}
        dialog={(close) => <Clear run={run} close={close} done={done} retry />}
      />
      <ActionButton
        name="Clear"
        disabled={!ended && "The run has not ended."}
        dialog={(close) => <Clear run={run} close={close} done={done} />}
      />
      <StartButton dag={run.dag_id} name="Run again" like={run} />
      <ActionButton name="Note" dialog={(close) => <NoteDialog run={run} close={close} done={done} />} />
      <ActionButton name="Mark" dialog={(close) => <MarkDialog run={run} close={close} done={done} />} />
    </div>
  );
}

interface Opened {
  run: RunDetail;
  close: () => void;
  done: () => void;
}

function Cancel({ run, close, done }: Opened) {
  const [reason, setReason] = useState("");
  const path = { run_id: run.run_id };
  const body = { reason };
  return (
    <ActionDialog
      title="Cancel the run"
      verb="Cancel the run"
      role="operator"
      about={{ dag: run.dag_id }}
      danger
      close={close}
      cli={command("runs", "cancel", run.run_id, reason && "--reason", reason)}
      request={{ method: "POST", path: urlOf("POST /api/v1/runs/{run_id}/cancel", { path }), body }}
      act={async () => {
        await call("POST /api/v1/runs/{run_id}/cancel", { path, body });
        done();
        return "The run is cancelled.";
      }}
    >
      <p>Its tasks stop now; those that have not started never will. It can be cleared later.</p>
      <label class="field">
        Reason, stored with the run
        <input value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
      </label>
    </ActionDialog>
  );
}

/** What would be cleared, as the server says, whenever the choice changes. */
export function Clear({
  run,
  close,
  done,
  retry = false,
  task,
}: {
  run: { run_id: string; dag_id: string };
  close: () => void;
  done: () => void;
  retry?: boolean;
  task?: string;
}) {
  const [downstream, setDownstream] = useState(true);
  const [onlyFailed, setOnlyFailed] = useState(false);
  const [newest, setNewest] = useState(false);
  const path = { run_id: run.run_id };
  const body = retry
    ? { newest }
    : { tasks: task ? [task] : [], downstream: Boolean(task) && downstream, only_failed: onlyFailed, newest };
  const route = retry ? "POST /api/v1/runs/{run_id}/retry" : "POST /api/v1/runs/{run_id}/clear";
  const plan = useResource(`plan ${route} ${run.run_id} ${JSON.stringify(body)}`, (signal) =>
    call(route, { path, body: { ...body, dry_run: true } as never }, signal),
  );
  const tasks = (plan.value as { tasks: readonly ClearedTaskView[] } | undefined)?.tasks;
  const flags = [
    !retry && task && "--task",
    !retry && task,
    !retry && task && downstream && "--downstream",
    onlyFailed && "--only-failed",
    newest && "--newest",
  ];
  return (
    <ActionDialog
      title={retry ? "Retry the run" : task ? `Clear ${task}` : "Clear the run"}
      verb={retry ? "Retry" : "Clear"}
      role="operator"
      about={{ dag: run.dag_id }}
      close={close}
      ready={Boolean(tasks?.length)}
      cli={command("runs", retry ? "retry" : "clear", run.run_id, ...flags)}
      request={{ method: "POST", path: urlOf(route, { path }), body }}
      act={async () => {
        const cleared = (await call(route, { path, body: body as never })) as {
          tasks: readonly ClearedTaskView[];
        };
        done();
        return `${cleared.tasks.length} tasks run again.`;
      }}
    >
      {task && <Check label="Also all tasks downstream of it" value={downstream} set={setDownstream} />}
      {!retry && (
        <Check label="Only tasks that failed or could not start" value={onlyFailed} set={setOnlyFailed} />
      )}
      <Check label="With the newest version of the DAG" value={newest} set={setNewest} />
      {plan.error ? (
        <Problem error={plan.error} />
      ) : (
        <PlannedTasks tasks={tasks} verb={tasks?.length === 1 ? "runs again" : "run again"} />
      )}
    </ActionDialog>
  );
}

function PlannedTasks({ tasks, verb }: { tasks: readonly ClearedTaskView[] | undefined; verb: string }) {
  if (!tasks) return <p class="loading">Looking what would happen…</p>;
  return (
    <div class="panel">
      <strong>
        {tasks.length} {tasks.length === 1 ? "task" : "tasks"} {verb}
      </strong>
      <ul class="chips">
        {tasks.slice(0, 50).map((each) => (
          <li class="chip" key={taskName(each)}>
            {taskName(each)} <State name={each.state} />
          </li>
        ))}
      </ul>
      {tasks.length > 50 && <p class="faint">and {tasks.length - 50} more</p>}
    </div>
  );
}

/** What people write on a run: a note, and tags. */
function NoteDialog({ run, close, done }: Opened) {
  const [note, setNote] = useState(run.note ?? "");
  const path = { run_id: run.run_id };
  const body = { note };
  return (
    <ActionDialog
      title="Note on the run"
      verb="Save"
      role="operator"
      close={close}
      cli={command("runs", "note", run.run_id) + (note ? ` ${quoted(note)}` : " ''")}
      request={{ method: "PATCH", path: urlOf("PATCH /api/v1/runs/{run_id}", { path }), body }}
      act={async () => {
        await call("PATCH /api/v1/runs/{run_id}", { path, body });
        done();
        return note ? "The note is saved." : "The note is removed.";
      }}
    >
      <label class="field">
        Note
        <textarea rows={3} value={note} onInput={(event) => setNote(event.currentTarget.value)} />
      </label>
    </ActionDialog>
  );
}

type Mark = "success" | "failed" | "skipped";

export function MarkDialog({
  run,
  close,
  done,
  task,
}: {
  run: { run_id: string; dag_id: string };
  close: () => void;
  done: () => void;
  task?: string;
}) {
  const [state, setState] = useState<Mark>("success");
  const [emit, setEmit] = useState(false);
  const [reason, setReason] = useState("");
  const path = { run_id: run.run_id };
  const body = { state, tasks: task ? [task] : [], emit, reason };
  const plan = useResource(`mark ${JSON.stringify([path, body])}`, (signal) =>
    call("POST /api/v1/runs/{run_id}/mark", { path, body: { ...body, dry_run: true } }, signal),
  );
  const options: readonly Mark[] = task ? ["success", "failed", "skipped"] : ["success", "failed"];
  const marked = plan.value as { tasks: readonly ClearedTaskView[] } | undefined;
  return (
    <ActionDialog
      title={task ? `Mark ${task}` : "Mark the run"}
      verb="Mark"
      role="operator"
      about={{ dag: run.dag_id }}
      close={close}
      ready={plan.value !== undefined}
      cli={command(
        ...(task ? ["tasks", "mark", state, run.run_id, task] : ["runs", "mark", state, run.run_id]),
        emit && "--emit",
        reason && "--reason",
        reason,
      )}
      request={{ method: "POST", path: urlOf("POST /api/v1/runs/{run_id}/mark", { path }), body }}
      act={async () => {
        await call("POST /api/v1/runs/{run_id}/mark", { path, body });
        done();
        return `Marked as ${state}.`;
      }}
    >
      <label class="field">
        As
        <select value={state} onChange={(event) => setState(event.currentTarget.value as Mark)}>
          {options.map((each) => (
            <option key={each}>{each}</option>
          ))}
        </select>
      </label>
      {state === "success" && <Check label="Emit an event for each outlet" value={emit} set={setEmit} />}
      {state === "failed" && (
        <label class="field">
          Reason
          <input value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
        </label>
      )}
      {plan.error ? <Problem error={plan.error} /> : <PlannedTasks tasks={marked?.tasks} verb="marked" />}
    </ActionDialog>
  );
}
