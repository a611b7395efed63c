/** What happens now: first what has failed or is stuck, then what runs, waits and lags. */
import type { FailureView, LongRunView, Readiness, StuckTaskView, Summary } from "#routes";
import { ApiError, call } from "../core/api";
import { grouped } from "../core/numbers";
import { useResource } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { bytes, duration } from "../core/time";
import { Histogram, wordsOf } from "../ui/bars";
import { ActionButton, command } from "../ui/dialog";
import { Ago, Empty, Heading, Loaded, Problem, Shape, State, Table, Took, type Column } from "../ui/parts";
import { PostEventButton } from "./events";
import { Clear } from "./run";
import { RunLink } from "./runs";

const RANGES: Record<string, { name: string; seconds: number; buckets: number }> = {
  hour: { name: "hour", seconds: 3600, buckets: 60 },
  day: { name: "24 hours", seconds: 86_400, buckets: 48 },
  week: { name: "7 days", seconds: 604_800, buckets: 84 },
};

export function Now() {
  const chosen = address.value.query.get("range") ?? "day";
  const range = RANGES[chosen] ?? RANGES.day!;
  const summary = useResource(
    `summary ${chosen}`,
    (signal) => {
      // Whole buckets: bars stay where they are, and an answer that is the same has the same ETag.
      const bucket = (range.seconds * 1000) / range.buckets;
      const end = Math.ceil((Date.now() + 1) / bucket) * bucket;
      const [since, until] = [end - range.seconds * 1000, end].map((each) => new Date(each).toISOString());
      return call("GET /api/v1/summary", { query: { since, until, buckets: range.buckets } }, signal);
    },
    { filter: { kinds: ["run", "dag", "import"] }, every: 10_000, least: 1000 },
  );
  const health = useResource("readiness", readiness, { every: 10_000 });
  return (
    <>
      <Heading title="Now" />
      {health.error && <Problem error={health.error} retry={health.reload} />}
      <Loaded of={summary} what="what happens now">
        {(found) => {
          const counts = countsOf(found);
          if (!counts("dags") && !counts("import_errors")) return <Begin />;
          return (
            <>
              <Counters of={found} counts={counts} />
              <Health of={health.value} />
              <NeedsYou of={found} done={summary.reload} />
              <History of={found} range={chosen} />
              <Running of={found} total={counts("runs", "running")} />
              <Lags of={health.value} counts={counts} />
            </>
          );
        }}
      </Loaded>
    </>
  );
}

/** A daemon that is not ready says why, with the status 503. */
async function readiness(signal: AbortSignal): Promise<Readiness> {
  const response = await fetch("/readyz", { signal });
  if (response.status !== 200 && response.status !== 503) throw new ApiError(response.status, {});
  return (await response.json()) as Readiness;
}

type Counts = (subject: string, label?: string) => number;

function countsOf(summary: Summary): Counts {
  return (subject, label) =>
    summary.work
      .filter((each) => each.subject === subject && (label === undefined || (each.label ?? "") === label))
      .reduce((sum, each) => sum + each.number, 0);
}

function Counters({ of, counts }: { of: Summary; counts: Counts }) {
  const failed = of.history.reduce((sum, bucket) => sum + (bucket.states.failed ?? 0), 0);
  const since = of.since;
  const items: [string, string, number, string][] = [
    ["failed", "failed runs", failed, `${to("runs")}?state=failed&since=${encodeURIComponent(since)}`],
    ["running", "running", counts("runs", "running"), `${to("runs")}?state=running`],
    ["queued", "queued", counts("runs", "queued"), `${to("runs")}?state=queued`],
    ["deferred", "waiting tasks", counts("tasks", "deferred"), to("waits")],
    ["dead", "dead letters", counts("dead_letters"), to("letters")],
    ["held", "held events", counts("held_events"), `${to("datasets")}?held=true`],
    ["import", "files that fail", counts("import_errors"), to("dags")],
    ["alert", "open alerts", counts("alerts"), to("system")],
  ];
  const bad = new Set(["failed", "dead", "held", "import", "alert"]);
  return (
    <ul class="counters" aria-label="Counts">
      {items.map(([id, name, count, href]) => (
        <li key={id}>
          <a href={href} class={bad.has(id) && count ? "bad" : ""}>
            <strong>{grouped(count)}</strong>
            <span>{name}</span>
          </a>
        </li>
      ))}
    </ul>
  );
}

function Health({ of }: { of: Readiness | undefined }) {
  if (!of) return null;
  const failing = Object.entries(of.checks).filter(([, holds]) => !holds);
  if (of.ready && of.intake.accepting) return null;
  return (
    <div class="panel bad" role="alert">
      {!of.ready && (
        <p>
          <strong>This daemon is not ready</strong>: {failing.map(([name]) => name).join(", ")}.
        </p>
      )}
      {!of.intake.accepting && (
        <p>
          <strong>Events are refused for a while</strong>: {of.intake.reason}.
        </p>
      )}
    </div>
  );
}

const FAILURES = (done: () => void): readonly Column<FailureView>[] => [
  {
    name: "Failed",
    show: (run) => (
      <span class="line">
        <State name="failed" /> <Ago at={run.ended_at ?? run.created_at} />
      </span>
    ),
  },
  {
    name: "DAG",
    show: (run) => (
      <>
        <a href={to("dags", run.dag_id)}>{run.dag_id}</a>{" "}
        {run.partition && <span class="chip">{run.partition}</span>}
        {run.others ? (
          <a class="faint more" href={`${to("runs")}?state=failed&dag=${encodeURIComponent(run.dag_id)}`}>
            {run.others}
            {run.others >= 199 ? " or more" : ""} before it
          </a>
        ) : null}
      </>
    ),
  },
  {
    name: "What went wrong",
    kind: "wide",
    show: (run) => (
      <>
        {run.task && (
          <a href={to("runs", run.run_id, "tasks", run.task.id.slice(37))}>
            <strong>{run.task.id.slice(37)}</strong>
          </a>
        )}
        {run.task?.error && (
          <span class="error-line">
            {run.task.error_type}: {run.task.error}
          </span>
        )}
        {run.error && <div class="faint">{run.error}</div>}
        {run.succeeded_since && (
          <div class="state s-success">
            <Shape name="success" /> has succeeded since
          </div>
        )}
      </>
    ),
  },
  { name: "Run", show: (run) => <RunLink run={run} />, minor: true },
  { name: "Took", kind: "right", minor: true, show: (run) => <Took from={run.started_at} to={run.ended_at} /> },
  {
    name: "Actions",
    show: (run) => (
      <span class="actions">
        <ActionButton
          name="Retry"
          keys="r"
          dialog={(close) => <Clear run={run} close={close} done={done} retry />}
        />
      </span>
    ),
  },
];

const STUCK: readonly Column<StuckTaskView>[] = [
  { name: "State", show: (task) => <State name={task.state} /> },
  { name: "DAG", show: (task) => <a href={to("dags", task.dag_id)}>{task.dag_id}</a> },
  {
    name: "Task",
    show: (task) => <a href={to("runs", task.run_id, "tasks", task.id.slice(37))}>{task.id.slice(37)}</a>,
  },
  { name: "Waits for", kind: "wide", show: (task) => task.waits_for ?? "its turn" },
  { name: "Since", show: (task) => <Ago at={task.since} /> },
];

function NeedsYou({ of, done }: { of: Summary; done: () => void }) {
  const all = address.value.query.has("mended");
  const open = of.failures.filter((run) => !run.succeeded_since);
  const mended = of.failures.length - open.length;
  const rows = all ? of.failures : open;
  return (
    <section aria-label="What needs you">
      <h2>Needs you</h2>
      {rows.length > 0 ? (
        <Table label="Failed runs" rows={rows} columns={FAILURES(done)} id={(run) => run.run_id} uncounted />
      ) : (
        <p class="state s-success">
          <Shape name="success" /> Each DAG that failed of late has succeeded since.
        </p>
      )}
      {mended > 0 && (
        <button type="button" aria-pressed={all} onClick={() => setQuery({ mended: all ? undefined : "yes" })}>
          {all ? "Hide" : "Show"} {mended} that {mended === 1 ? "has" : "have"} succeeded since
        </button>
      )}
      {of.stuck.length > 0 && (
        <>
          <h3>Ready, and not started</h3>
          <Table label="Tasks that are stuck" rows={of.stuck} columns={STUCK} id={(task) => task.id} uncounted />
        </>
      )}
    </section>
  );
}

function History({ of, range }: { of: Summary; range: string }) {
  const total: Record<string, number> = {};
  for (const bucket of of.history) {
    for (const [state, count] of Object.entries(bucket.states)) total[state] = (total[state] ?? 0) + count;
  }
  return (
    <section aria-label="Runs over time">
      <div class="line">
        <h2>Runs of the last {RANGES[range]?.name ?? "24 hours"}</h2>
        <div class="chips" role="group" aria-label="How far back">
          {Object.entries(RANGES).map(([id, each]) => (
            <button key={id} type="button" class="chip" aria-pressed={id === range} onClick={() => setQuery({ range: id })}>
              {each.name}
            </button>
          ))}
        </div>
        <span class="faint">{wordsOf(total) || "none"}</span>
        {of.counted_since && (
          <span class="faint">
            counted since <Ago at={of.counted_since} /> only: there are too many
          </span>
        )}
      </div>
      {of.history.length > 0 && (
        <>
          <Histogram of={of} />
          <details>
            <summary>The same as a list</summary>
            <Table
              label="Runs over time"
              rows={[...of.history].reverse()}
              id={(bucket) => bucket.at}
              columns={[
                { name: "From", show: (bucket) => <Ago at={bucket.at} /> },
                {
                  name: "Runs",
                  kind: "wide",
                  show: (bucket) => (
                    <a href={`${to("runs")}?${rangeOf(bucket.at, of.bucket_seconds)}`}>{wordsOf(bucket.states)}</a>
                  ),
                },
              ]}
            />
          </details>
        </>
      )}
    </section>
  );
}

function rangeOf(at: string, seconds: number): URLSearchParams {
  return new URLSearchParams({ since: at, until: new Date(Date.parse(at) + seconds * 1000).toISOString() });
}

const LONGEST: readonly Column<LongRunView>[] = [
  { name: "State", show: (run) => <State name={run.state} /> },
  { name: "Run", show: (run) => <RunLink run={run} /> },
  { name: "DAG", show: (run) => <a href={to("dags", run.dag_id)}>{run.dag_id}</a> },
  { name: "Why", kind: "wide", show: (run) => run.cause },
  { name: "For", kind: "right", show: (run) => <Took from={run.started_at ?? run.created_at} to={null} /> },
];

function Running({ of, total }: { of: Summary; total: number }) {
  if (!of.longest.length) return null;
  return (
    <section aria-label="What runs">
      <h2>Runs now, the longest first</h2>
      <Table label="Runs under way" rows={of.longest} columns={LONGEST} id={(run) => run.run_id} uncounted />
      {total > of.longest.length && <a href={`${to("runs")}?state=running`}>All {grouped(total)}</a>}
    </section>
  );
}

function Lags({ of, counts }: { of: Readiness | undefined; counts: Counts }) {
  const slots = counts("slots");
  return (
    <section aria-label="Lags">
      <h2>
        <a class="plain" href={to("system")}>
          Lags and slots
        </a>
      </h2>
      <dl class="facts">
        <div>
          <dt>Workers</dt>
          <dd class={counts("workers") ? "" : "state s-failed"}>
            {counts("workers") ? `${counts("workers")}, ${counts("busy_slots")} of ${slots} slots busy` : "none runs"}
          </dd>
        </div>
        <div>
          <dt>Events and messages waiting</dt>
          <dd>{of ? of.intake.pending : "–"}</dd>
        </div>
        {Object.entries(of?.oldest_seconds ?? {}).map(([name, seconds]) => (
          <div key={name}>
            <dt>Oldest of {name}</dt>
            <dd class={seconds > 5 ? "state s-failed" : ""}>{seconds ? duration(seconds * 1000) : "none waits"}</dd>
          </div>
        ))}
        {of?.intake.free_bytes != null && (
          <div>
            <dt>Free disk</dt>
            <dd>{bytes(of.intake.free_bytes)}</dd>
          </div>
        )}
      </dl>
    </section>
  );
}

function Begin() {
  return (
    <Empty>
      <p>There is no DAG yet. Begin with one of these, or post an event that a DAG will take.</p>
      <code>{command("init", "my-project")}</code>
      <code>{command("demo")}</code>
      <code>{command("up", "dags")}</code>
      <PostEventButton dataset="s3://lake/orders" name="Post an event" />
    </Empty>
  );
}
