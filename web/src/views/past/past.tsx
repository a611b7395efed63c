/** Runs of the past: backfills and replays, with what they would do before they do it. */
import type { PlannedRun, PlannedRuns } from "#routes";
import { call } from "../../core/api";
import { grouped } from "../../core/numbers";
import { useResource } from "../../core/resource";
import { address, navigate, setQuery, to } from "../../core/router";
import { absolute } from "../../core/time";
import { Check } from "../../ui/check";
import { ActionButton, ActionDialog, Same, command } from "../../ui/dialog";
import { Choice, Moment, Text } from "../../ui/fields";
import { faultOf } from "../../ui/form";
import { Empty, Heading, Loaded, State, Table, Tabs } from "../../ui/parts";
import { BackfillList } from "./backfills";

const LISTED = 200;

export function Past() {
  const { query } = address.value;
  const replays = query.get("kind") === "replay";
  const names = useResource(`past names ${replays}`, async (signal) => {
    const query = { limit: 1000 };
    if (!replays) return (await call("GET /api/v1/dags", { query }, signal)).items.map((dag) => dag.dag_id);
    return (await call("GET /api/v1/datasets", { query }, signal)).items.map((each) => each.dataset);
  });
  const known = names.value ?? [];
  return (
    <>
      <Heading title="Backfills and replays" />
      <Tabs
        label="What is run"
        now={replays ? "replay" : "backfill"}
        tabs={[
          { id: "backfill", name: "Backfill: ticks and partitions", href: to("past") },
          { id: "replay", name: "Replay: past events", href: `${to("past")}?kind=replay` },
        ]}
      />
      {replays ? <Replay datasets={known} /> : <Backfill dags={known} />}
      <BackfillList />
    </>
  );
}

interface Plan {
  /** What is sent; undefined while something is lacking. */
  body: Record<string, unknown> | undefined;
  /** What is lacking or wrong. */
  fault: string | undefined;
  flags: (string | number | false | undefined)[];
}

function backfillOf(query: URLSearchParams): Plan {
  const get = (name: string) => query.get(name) || undefined;
  const keys = (query.get("partitions") ?? "").split(/\s+/).filter(Boolean);
  const made = query.get("make") ?? "missing";
  const params = get("params");
  const limit = Number(get("limit") ?? 0) || undefined;
  const body = {
    ...(get("from") && !keys.length && { from: get("from") }),
    ...(get("to") && !keys.length && { to: get("to") }),
    ...(keys.length && { partitions: keys }),
    ...(params && !faultOf(params) && { params: JSON.parse(params) as object }),
    ...(made === "failed" && { only_failed: true }),
    ...(made === "all" && { again: true }),
    ...(query.has("newest") && { newest_first: true }),
    ...(limit && { max_active_runs: limit }),
    ...(get("about") && { description: get("about") }),
  };
  let fault: string | undefined;
  if (!get("dag")) fault = "Choose a DAG.";
  else if (!keys.length && !get("from")) fault = "Choose where it begins, or name partitions.";
  else if (params && faultOf(params)) fault = `The params are not valid JSON: ${faultOf(params)}`;
  const range = keys.length ? keys.flatMap((key) => ["--partition", key]) : ["--from", get("from")];
  return {
    body: fault ? undefined : body,
    fault,
    flags: [
      ...range,
      ...(!keys.length && get("to") ? ["--to", get("to")] : []),
      ...(params ? ["--params", JSON.stringify(body.params)] : []),
      made === "failed" && "--only-failed",
      made === "all" && "--again",
      query.has("newest") && "--newest-first",
      ...(limit ? ["--max-active-runs", limit] : []),
      ...(get("about") ? ["--description", get("about")] : []),
    ],
  };
}

function Backfill({ dags }: { dags: readonly string[] }) {
  const { query } = address.value;
  const dag = query.get("dag") ?? "";
  const { body, fault, flags } = backfillOf(query);
  const path = { dag_id: dag };
  const cli = command("dags", "backfill", dag, ...flags);
  const request = { method: "POST", path: `/api/v1/dags/${encodeURIComponent(dag)}/backfill`, body };
  const partitions = query.get("partitions") ?? "";
  const field = (name: string) => ({
    value: query.get(name) ?? "",
    set: (value: string) => setQuery({ [name]: value }),
  });
  return (
    <div class="wizard">
      <form class="panel" aria-label="The backfill" onSubmit={(event) => event.preventDefault()}>
        <Text label="DAG" options={dags} {...field("dag")} />
        {!partitions && (
          <div class="pair">
            <Moment label="From" {...field("from")} />
            <Moment label="To" {...field("to")} hint="exclusive; now if left out" />
          </div>
        )}
        <Text
          label="Partitions, in place of times"
          rows={partitions.includes("\n") ? 4 : 2}
          placeholder="2026-11-20 2026-11-21"
          hint="apart by spaces or lines"
          {...field("partitions")}
        />
        <Choice
          label="Which runs"
          value={query.get("make") ?? "missing"}
          set={(value) => setQuery({ make: value === "missing" ? undefined : value })}
          options={[
            ["missing", "those that do not exist"],
            ["failed", "also those whose last one failed or was cancelled"],
            ["all", "all, also those that exist"],
          ]}
        />
        <Check
          label="The newest first"
          value={query.has("newest")}
          set={(value) => setQuery({ newest: value ? "yes" : undefined })}
        />
        <Text
          label="How many at once"
          type="number"
          hint="apart from the DAG's other runs; without, they count against its own limit"
          {...field("limit")}
        />
        <details open={Boolean(query.get("params") || query.get("about"))}>
          <summary>Params and description</summary>
          <Text label="Params in place of the defaults, as JSON" rows={3} {...field("params")} />
          <Text label="Description" {...field("about")} />
        </details>
      </form>
      <Preview
        key={`${dag} ${JSON.stringify(body)}`}
        fault={fault}
        load={async (signal) => [
          await call(
            "POST /api/v1/dags/{dag_id}/backfill",
            { path, body: { ...body, dry_run: true, limit: LISTED } as never },
            signal,
          ),
        ]}
        cli={cli}
        request={request}
        verb="Start the backfill"
        act={async () => {
          const plan = await call("POST /api/v1/dags/{dag_id}/backfill", {
            path,
            body: { ...body, limit: 1 } as never,
          });
          if (!plan.backfill_id) return `Nothing is to be done: ${plan.reason}.`;
          navigate(to("past", plan.backfill_id));
          return `The backfill of ${dag} has begun: ${plan.planned} runs.`;
        }}
      />
    </div>
  );
}

function Replay({ datasets }: { datasets: readonly string[] }) {
  const { query } = address.value;
  const named = (query.get("dags") ?? "").split(/\s+/).filter(Boolean);
  const [dataset, from, until] = ["dataset", "from", "to"].map((name) => query.get(name) || undefined);
  const again = query.has("again");
  const body = {
    ...(from && { from }),
    ...(until && { to: until }),
    ...(dataset && { dataset }),
    ...(named.length && { dags: named }),
    ...(again && { again }),
  };
  let fault: string | undefined;
  if (!from) fault = "Choose where it begins.";
  else if (!dataset && !named.length) fault = "Choose a dataset, or DAGs.";
  const field = (name: string) => ({
    value: query.get(name) ?? "",
    set: (value: string) => setQuery({ [name]: value }),
  });
  return (
    <div class="wizard">
      <form class="panel" aria-label="The replay" onSubmit={(event) => event.preventDefault()}>
        <Text
          label="Dataset"
          options={datasets}
          hint="only runs that consume an event of it"
          {...field("dataset")}
        />
        <Text
          label="DAGs"
          hint="apart by spaces; all that subscribe to the dataset if left out"
          {...field("dags")}
        />
        <div class="pair">
          <Moment label="Events recorded from" {...field("from")} />
          <Moment label="To" {...field("to")} hint="exclusive; now if left out" />
        </div>
        <Check
          label="Also runs that exist"
          value={again}
          set={(value) => setQuery({ again: value ? "yes" : undefined })}
        />
        <p class="hint">
          The schedules are evaluated on the events of that time once more, in their order. What is pending now stays
          as it is.
        </p>
      </form>
      <Preview
        key={JSON.stringify(body)}
        fault={fault}
        load={(signal) =>
          call("POST /api/v1/datasets/replay", { body: { ...body, dry_run: true, limit: LISTED } as never }, signal)
        }
        cli={command(
          ...["datasets", "replay", "--from", from],
          ...(until ? ["--to", until] : []),
          ...(dataset ? ["--dataset", dataset] : []),
          ...named.flatMap((dag) => ["--dag", dag]),
          again && "--again",
        )}
        request={{ method: "POST", path: "/api/v1/datasets/replay", body }}
        verb="Start the replay"
        act={async () => {
          const plans = await call("POST /api/v1/datasets/replay", { body: { ...body, limit: 0 } as never });
          const count = plans.reduce((sum, plan) => sum + fresh(plan), 0);
          const only = plans.length === 1 ? `&dag=${encodeURIComponent(plans[0]!.dag_id)}` : "";
          navigate(`${to("runs")}?kind=replay${only}`);
          return `${count} ${count === 1 ? "run has" : "runs have"} started.`;
        }}
      />
    </div>
  );
}

/** How many runs a plan would make. */
function fresh(plan: PlannedRuns): number {
  return (plan.planned ?? plan.runs.length) - (plan.existing ?? 0);
}

/** What would run, as the server says, and the button that starts it. */
function Preview(props: {
  fault: string | undefined;
  load: (signal: AbortSignal) => Promise<readonly PlannedRuns[]>;
  cli: string;
  request: { method: string; path: string; body: unknown };
  verb: string;
  act: () => Promise<string>;
}) {
  if (props.fault) {
    return (
      <Empty>
        <p>{props.fault}</p>
        <p>What would run stands here before anything does.</p>
      </Empty>
    );
  }
  return <Planned {...props} />;
}

function Planned(props: Parameters<typeof Preview>[0]) {
  const found = useResource("plan", props.load);
  return (
    <section class="panel" aria-label="What would run">
      <Loaded of={found} what="what would run">
        {(plans) => {
          const count = plans.reduce((sum, plan) => sum + fresh(plan), 0);
          return (
            <>
              <div class="heading">
                <h2>
                  {grouped(count)} {count === 1 ? "run" : "runs"} would start
                </h2>
                <div class="actions">
                  <ActionButton
                    name={props.verb}
                    primary
                    keys="s"
                    disabled={!count && "Nothing would start."}
                    dialog={(close) => (
                      <ActionDialog
                        title={props.verb}
                        verb={props.verb}
                        role="operator"
                        close={close}
                        cli={props.cli}
                        request={props.request}
                        act={props.act}
                      >
                        {plans.map((plan) => (
                          <Summary key={plan.dag_id} plan={plan} />
                        ))}
                      </ActionDialog>
                    )}
                  />
                </div>
              </div>
              {!plans.length && <p>No DAG subscribes to these events.</p>}
              {plans.map((plan) => (
                <section key={plan.dag_id}>
                  <Summary plan={plan} />
                  <PlanTable plan={plan} />
                </section>
              ))}
            </>
          );
        }}
      </Loaded>
      <Same cli={props.cli} request={props.request} />
    </section>
  );
}

function Summary({ plan }: { plan: PlannedRuns }) {
  const planned = plan.planned ?? plan.runs.length;
  const named = plan.first && plan.last && planned > 1;
  return (
    <p>
      <strong>{plan.dag_id}</strong>: {grouped(planned)} planned
      {Boolean(plan.existing) && (
        <>
          , of {planned > 10_000 && "the first 10,000 of "}them {grouped(plan.existing!)} exist already
        </>
      )}
      {named && (
        <>
          , from <b>{nameOf(plan.first!)}</b> to <b>{nameOf(plan.last!)}</b>
          {planned > 10_000 && " (the 10,000th)"}
        </>
      )}
      . {plan.reason && <span class="faint">{plan.reason}</span>}
    </p>
  );
}

function nameOf(run: PlannedRun): string {
  if (run.partition) return run.partition;
  return run.logical_time ? run.logical_time.replace("T", " ").replace(/(:00)?Z$/, " UTC") : run.run_key.slice(-12);
}

function PlanTable({ plan }: { plan: PlannedRuns }) {
  if (!plan.runs.length) return null;
  const planned = plan.planned ?? plan.runs.length;
  const fed = plan.runs.some((run) => run.events?.length);
  return (
    <>
      <Table
        label={`Runs of ${plan.dag_id} that would start`}
        rows={plan.runs}
        id={(run) => run.run_key}
        columns={[
          {
            name: "Run",
            show: (run) => <span title={run.logical_time ? absolute(run.logical_time) : run.run_key}>{nameOf(run)}</span>,
          },
          {
            name: "Now",
            show: (run) =>
              run.exists && run.run_id ? (
                <a href={to("runs", run.run_id)}>exists</a>
              ) : run.exists ? (
                "exists"
              ) : (
                <State name="new" />
              ),
          },
          ...(fed
            ? [
                {
                  name: "Events",
                  kind: "wide" as const,
                  show: (run: PlannedRun) => (
                    <span class="line">
                      {run.events?.length ?? 0}
                      {run.events?.slice(0, 3).map((event) => (
                        <a key={event} href={to("events", event)}>
                          {event.slice(-8)}
                        </a>
                      ))}
                      {(run.events?.length ?? 0) > 3 && "…"}
                    </span>
                  ),
                },
              ]
            : []),
        ]}
      />
      {planned > plan.runs.length && (
        <p class="faint">The first {plan.runs.length} of {grouped(planned)} are shown.</p>
      )}
    </>
  );
}
