import type { Clause, DagDetail, WaitingInput, WhyNot } from "#routes";
import { useLayoutEffect, useState } from "preact/hooks";
import { call } from "../core/api";
import { bind } from "../core/keys";
import { lazy } from "../core/lazy";
import { useResource } from "../core/resource";
import { address, navigate, to } from "../core/router";
import { duration } from "../core/time";
import { Graph, type GraphNode } from "../graph/graph";
import { Ago, Empty, Facts, Heading, Id, Json, Loaded, Shape, State, Table, Tabs } from "../ui/parts";
import { PauseButton } from "./dags";
import { PostEventButton } from "./events";
import { RunList } from "./runs";
import { StartButton } from "./start";

const LazyGrid = lazy(() => import("./grid").then((each) => each.RunsGrid));
const Schedule = lazy(() => import("./schedule").then((each) => each.Schedule));
const Versions = lazy(() => import("./versions").then((each) => each.Versions));

const NAMES: Record<string, string> = {
  why: "Why",
  grid: "Grid",
  runs: "Runs",
  graph: "Graph",
  schedule: "Schedule",
  versions: "Versions",
  settings: "Settings",
};
const TABS = Object.keys(NAMES);
const LISTED = 100; // tasks at first

export function Dag({ id }: { id: string }) {
  const dag = useResource(
    `dag ${id}`,
    (signal) => call("GET /api/v1/dags/{dag_id}", { path: { dag_id: id } }, signal),
    { filter: { kinds: ["dag", "run"], dags: [id] } },
  );
  const shown = address.value.query.get("tab");
  const tab = TABS.includes(shown ?? "") ? shown! : "why";
  useLayoutEffect(() => {
    const keys = TABS.map((each, index) => ({
      keys: String(index + 1),
      about: `Open ${NAMES[each]}`,
      act: () => navigate(`${to("dags", id)}?tab=${each}`),
    }));
    return bind(...keys);
  }, [id]);
  return (
    <>
      <Loaded of={dag} what="the DAG">
        {(found) => (
        <>
          <Heading title={found.dag_id}>
            {found.paused && <State name="paused" />}
            <div class="actions">
              <StartButton dag={id} keys="s" />
              <PauseButton dag={found} done={dag.reload} />
            </div>
          </Heading>
          {found.description && <p>{found.description}</p>}
          {found.import_error && (
            <div class="panel bad">
              <p>
                <strong>{found.file}</strong> cannot be imported; version {found.version} stays in force.
              </p>
              <pre>{found.import_error}</pre>
            </div>
          )}
          <Tabs
            label="Parts of the DAG"
            now={tab}
            tabs={TABS.map((each) => ({ id: each, name: NAMES[each]!, href: `${to("dags", id)}?tab=${each}` }))}
          />
          {tab === "graph" && <DagGraph dag={found} />}
          {tab === "versions" && <Versions dag={found} done={dag.reload} />}
          {tab === "settings" && <Settings dag={found} />}
        </>
        )}
      </Loaded>
      {/* These need no more than its id, so they load beside it. */}
      {(dag.value || !dag.error) && tab === "why" && <Why id={id} />}
      {(dag.value || !dag.error) && tab === "grid" && <RunsGrid dag={id} />}
      {(dag.value || !dag.error) && tab === "runs" && <RunList dag={id} />}
      {(dag.value || !dag.error) && tab === "schedule" && <Schedule dag={id} />}
    </>
  );
}

/** Asks for its data while its code is loaded. */
function RunsGrid({ dag }: { dag: string }) {
  const after = address.value.query.get("after") ?? undefined;
  const found = useResource(
    `grid ${dag} ${after}`,
    (signal) => call("GET /api/v1/dags/{dag_id}/grid", { path: { dag_id: dag }, query: { after } }, signal),
    { filter: { kinds: ["run", "task", "dag"], dags: [dag] }, least: 500 },
  );
  return <LazyGrid dag={dag} of={found} />;
}

/** Why no run starts: the reasons in order, the condition as a tree, and what is lacking. */
function Why({ id }: { id: string }) {
  const partition = address.value.query.get("partition") ?? undefined;
  const why = useResource(
    `why ${id} ${partition}`,
    (signal) =>
      call("GET /api/v1/dags/{dag_id}/why-not", { path: { dag_id: id }, query: { partition } }, signal),
    { filter: { kinds: ["dag", "run", "dataset"] }, every: 15_000 },
  );
  return (
    <Loaded of={why} what="why it does not run">
      {(found) => (
        <>
          <section class="panel" aria-label="Why no run starts">
            <h2>{partition ? `Why no run of ${partition} starts` : "Why no run starts now"}</h2>
            {found.reasons.length ? (
              <ol>
                {found.reasons.map((reason) => (
                  <li key={reason.text}>
                    {reason.text}
                    {reason.until && (
                      <>
                        {" "}
                        (until <Ago at={reason.until} />)
                      </>
                    )}
                  </li>
                ))}
              </ol>
            ) : (
              <p>Nothing stands in the way.</p>
            )}
            {found.schedule && (
              <p>
                Schedule: <code>{found.schedule}</code>{" "}
                <a href={`${to("simulator")}?dag=${encodeURIComponent(id)}`}>Simulate it</a>
              </p>
            )}
            <Facts
              of={[
                ["Next tick", found.next_tick && <Ago at={found.next_tick} />],
                ["Runs now", `${found.active_runs} of ${found.max_active_runs}, ${found.queued_runs} queued`],
                ["Held back", found.held_back ? `${found.held_back} events` : null],
                [
                  "Last run",
                  found.last_run && (
                    <a href={to("runs", found.last_run.run_id)}>
                      <State name={found.last_run.state} />
                    </a>
                  ),
                ],
                [
                  "Collects in",
                  found.collecting_run && <a href={to("runs", found.collecting_run)}>this run</a>,
                ],
              ]}
            />
          </section>
          {found.condition && (
            <section>
              <h2>The condition</h2>
              <ul class="tree" aria-label="The condition">
                <ClauseLine clause={found.condition} why={found} />
              </ul>
            </section>
          )}
          <Missing why={found} />
          {!found.condition && found.inputs.length > 0 && (
            <section>
              <h2>Inputs</h2>
              <ul class="tree">
                {found.inputs.map((input) => (
                  <li key={input.place}>
                    <InputLine input={input} />
                  </li>
                ))}
              </ul>
            </section>
          )}
          {found.partitions && found.partitions.length > 0 && <Partitions why={found} />}
        </>
      )}
    </Loaded>
  );
}

const JOINS: Record<string, string> = { all: "all of", any: "any of", or_after: "or after a time" };

function ClauseLine({ clause, why }: { clause: Clause; why: WhyNot }) {
  const input = clause.place == null ? undefined : why.inputs.find((each) => each.place === clause.place);
  return (
    <li>
      <div class="line">
        <span class={`state ${clause.holds ? "s-success" : "s-pending"}`}>
          <Shape name={clause.holds ? "success" : "pending"} />
          {clause.holds ? "holds" : "waits"}
        </span>
        {JOINS[clause.kind] ? <strong>{JOINS[clause.kind]}</strong> : !input && <code>{clause.text}</code>}
        {clause.due && (
          <span class="faint">
            due <Ago at={clause.due} />
            {clause.then && `, then ${clause.then}`}
          </span>
        )}
        {input && <InputLine input={input} />}
      </div>
      {clause.sides && clause.sides.length > 0 && (
        <ul>
          {clause.sides.map((side, index) => (
            <ClauseLine key={`${index} ${side.text}`} clause={side} why={why} />
          ))}
        </ul>
      )}
    </li>
  );
}

function InputLine({ input }: { input: WaitingInput }) {
  const parts = [
    input.pending ? `${input.pending} pending` : "none pending",
    (input.at_least ?? 1) > 1 && `needs ${input.at_least}`,
    input.too_old && `${input.too_old} too old`,
    input.within_seconds && `within ${duration(input.within_seconds * 1000)}`,
    input.parts && `${input.parts.there} of ${input.parts.wanted} parts`,
    input.reachable === false && "no key of its events counts for this partition",
  ].filter(Boolean);
  const gone = [
    input.filtered && `${input.filtered} filtered`,
    input.expired && `${input.expired} expired`,
    input.skipped && `${input.skipped} skipped`,
  ].filter(Boolean);
  return (
    <span class="line">
      <a href={`${to("events")}?dataset=${encodeURIComponent(input.dataset)}`}>{input.dataset}</a>
      {input.where && <code>where {input.where}</code>}
      <span>{parts.join(", ")}</span>
      {input.last_event_at && (
        <span class="faint">
          last event <Ago at={input.last_event_at} />
        </span>
      )}
      {gone.length > 0 && (
        <span class="faint">
          in the last day {gone.join(", ")}
          {input.last_reason && `: ${input.last_reason}`}
        </span>
      )}
    </span>
  );
}

/** What would start a run now: the events that are lacking, in the cheapest branch of each choice. */
function lackingInputs(clause: Clause | null | undefined, why: WhyNot): WaitingInput[] | undefined {
  if (!clause) return undefined;
  if (clause.holds) return [];
  if (clause.kind === "dataset") {
    const input = why.inputs.find((each) => each.place === clause.place);
    return input ? [input] : undefined;
  }
  const sides = (clause.sides ?? []).map((side) => lackingInputs(side, why));
  if (clause.kind === "all") {
    return sides.every((each) => each !== undefined) ? sides.flatMap((each) => each!) : undefined;
  }
  const possible = sides.filter((each) => each !== undefined);
  return possible.sort((a, b) => a!.length - b!.length)[0];
}

function Missing({ why }: { why: WhyNot }) {
  const missing = lackingInputs(why.condition, why);
  if (!missing?.length) return null;
  return (
    <section class="panel">
      <h2>What would start it now</h2>
      <ul class="tree">
        {missing.map((input) => (
          <li key={input.place}>
            <div class="line">
              {input.missing || 1} {input.missing > 1 ? "events" : "event"} of <strong>{input.dataset}</strong>
              {!input.pattern && <PostEventButton dataset={input.dataset} name="Post it" />}
            </div>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Partitions({ why }: { why: WhyNot }) {
  return (
    <section>
      <h2>{why.open_partitions} partitions wait</h2>
      <Table
        label="Partitions that wait"
        rows={why.partitions!}
        id={(each) => each.partition}
        columns={[
          {
            name: "Partition",
            show: (each) => (
              <a href={`${to("dags", why.dag_id)}?tab=why&partition=${encodeURIComponent(each.partition)}`}>
                {each.partition}
              </a>
            ),
          },
          { name: "Pending", kind: "right", show: (each) => each.pending },
          { name: "Waits for", kind: "wide", show: (each) => each.waits_for },
          { name: "Since", show: (each) => <Ago at={each.since} /> },
        ]}
      />
    </section>
  );
}

function DagGraph({ dag }: { dag: DagDetail }) {
  const nodes: GraphNode[] = [];
  const edges: [string, string][] = [];
  const dataset = (uri: string) => {
    const id = `dataset ${uri}`;
    if (!nodes.some((node) => node.id === id)) {
      const href = `${to("events")}?dataset=${encodeURIComponent(uri)}`;
      nodes.push({ id, kind: "dataset", name: uri, href, about: <small>dataset</small> });
    }
    return id;
  };
  for (const task of dag.graph) {
    const about = [task.operator, task.mapped && "mapped", task.retries && `${task.retries} retries`];
    nodes.push({
      id: task.task_id,
      kind: "task",
      name: task.task_id,
      href: `${to("dags", dag.dag_id)}?tab=settings#${encodeURIComponent(task.task_id)}`,
      about: <small>{about.filter(Boolean).join(" · ")}</small>,
    });
    for (const above of task.upstream) edges.push([above, task.task_id]);
    for (const uri of task.outlets ?? []) edges.push([task.task_id, dataset(uri)]);
    for (const uri of task.inlets ?? []) edges.push([dataset(uri), task.task_id]);
  }
  if (!nodes.length) return <Empty>It has no task.</Empty>;
  return (
    <>
      <Graph label={`Graph of ${dag.dag_id}`} nodes={nodes} edges={edges} />
      <TaskTable dag={dag} />
    </>
  );
}

function TaskTable({ dag }: { dag: DagDetail }) {
  // An address may name one of them.
  const [all, setAll] = useState(dag.graph.length <= LISTED || location.hash !== "");
  return (
    <Table
      label="Tasks of the DAG"
      rows={all ? dag.graph : dag.graph.slice(0, LISTED)}
      more={all ? undefined : () => setAll(true)}
      id={(task) => task.task_id}
      columns={[
        { name: "Task", show: (task) => <span id={task.task_id}>{task.task_id}</span> },
        { name: "Operator", show: (task) => task.operator },
        { name: "After", kind: "wide", show: (task) => task.upstream.join(", ") || "–" },
        { name: "Emits", show: (task) => (task.outlets ?? []).join(", "), minor: true },
        { name: "Runs when", show: (task) => task.trigger_rule, minor: true },
        { name: "Retries", kind: "right", show: (task) => task.retries },
        {
          name: "Timeout",
          kind: "right",
          minor: true,
          show: (task) => (task.timeout_seconds ? duration(task.timeout_seconds * 1000) : "–"),
        },
        { name: "Queue", show: (task) => task.queue ?? "", minor: true },
      ]}
    />
  );
}

function Settings({ dag }: { dag: DagDetail }) {
  return (
    <>
      <Facts
        of={[
          ["File", <code>{dag.line ? `${dag.file}:${dag.line}` : dag.file}</code>],
          ["Schedule", dag.schedule ? <code>{dag.schedule}</code> : "only by hand"],
          ["Version", `v${dag.version}`],
          ["Since", <Ago at={dag.created_at} />],
          ["Owner", dag.owner],
          ["Tags", dag.tags?.join(", ")],
          ["Runs at once", dag.max_active_runs],
          ["Timeout", dag.timeout_seconds ? duration(dag.timeout_seconds * 1000) : null],
          ["Starts at", dag.start && <Ago at={dag.start} />],
          ["Ends at", dag.end && <Ago at={dag.end} />],
          ["Catches up", dag.catchup ? "yes" : "no"],
          ["While paused, events are", dag.on_pause === "hold" ? "held back" : dag.on_pause],
          ["Revision", <Id id={dag.revision} />],
        ]}
      />
      <h2>Params</h2>
      {Object.keys(dag.params).length ? <Json value={dag.params} label="the params" /> : <p>It takes none.</p>}
      {dag.params_schema && (
        <details>
          <summary>Schema of the params</summary>
          <Json value={dag.params_schema} label="the schema" />
        </details>
      )}
      <h2>Tasks</h2>
      <TaskTable dag={dag} />
    </>
  );
}
