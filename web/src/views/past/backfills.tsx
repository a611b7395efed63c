/** Backfills with their progress: listed, shown, paused, resumed and cancelled. */
import type { BackfillView, PlannedRunView } from "#routes";
import { useState } from "preact/hooks";
import { call, urlOf } from "../../core/api";
import { usePages, useResource } from "../../core/resource";
import { to } from "../../core/router";
import { Bar } from "../../ui/bar";
import { Check } from "../../ui/check";
import { ActionButton, ActionDialog, command } from "../../ui/dialog";
import { Ago, Empty, Facts, Heading, Id, Json, Loaded, State, Table, type Column } from "../../ui/parts";

const POLL_MS = 15_000; // the stream tells of their runs, not of a backfill that is paused

/** The state as one of those that runs have, for shape and colour. */
const LIKE: Record<string, string> = { completed: "success" };

export function BackfillList() {
  const found = usePages(
    "backfills",
    (wanted, signal) => call("GET /api/v1/backfills", { query: { ...wanted } }, signal),
    { filter: { kinds: ["run"] }, every: POLL_MS },
  );
  return (
    <section aria-label="Backfills">
      <h2>Backfills</h2>
      <Loaded of={found} what="backfills">
        {(all) =>
          all.length ? (
            <Table
              label="Backfills"
              rows={all}
              id={(each) => each.backfill_id}
              columns={columns(found.reload)}
              more={found.more}
            />
          ) : (
            <Empty>
              <p>There is no backfill yet.</p>
              <code>{command("backfills", "list")}</code>
            </Empty>
          )
        }
      </Loaded>
    </section>
  );
}

const columns = (reload: () => void): readonly Column<BackfillView>[] => [
  { name: "State", show: (each) => <BackfillState of={each} /> },
  { name: "Backfill", show: (each) => <a href={to("past", each.backfill_id)}>{each.dag_id}</a> },
  { name: "Progress", kind: "wide", show: (each) => <Progress of={each} /> },
  { name: "What", show: (each) => each.description ?? rangeOf(each), minor: true },
  { name: "By", show: (each) => each.created_by, minor: true },
  { name: "Since", show: (each) => <Ago at={each.created_at} /> },
  { name: "Actions", show: (each) => <Actions of={each} done={reload} /> },
];

function BackfillState({ of }: { of: BackfillView }) {
  const state = of.state === "completed" && of.failed + of.cancelled > 0 ? "failed" : of.state;
  return <State name={LIKE[state] ?? state} word={of.state === "completed" ? "completed" : state} />;
}

function rangeOf(each: BackfillView): string {
  if (each.partitions != null) return `${each.partitions} partitions`;
  const day = (text: string | null | undefined) => text?.slice(0, 16).replace("T", " ") ?? "";
  return `${day(each.from)} – ${day(each.to)}`;
}

function Progress({ of }: { of: BackfillView }) {
  return (
    <Bar
      label={`Progress of the backfill of ${of.dag_id}`}
      total={of.planned}
      parts={[
        ["success", of.succeeded, "succeeded"],
        ["failed", of.failed, "failed"],
        ["cancelled", of.cancelled, "cancelled"],
        ["running", of.running, "running"],
        ["queued", of.queued, "queued"],
        ["skipped", of.exists, "existed"],
        ["skipped", of.pruned, "removed"],
        ["none", of.left, "to come"],
      ]}
    />
  );
}

function Actions({ of, done }: { of: BackfillView; done: () => void }) {
  const over = !["running", "paused"].includes(of.state);
  return (
    <span class="actions">
      {of.state === "paused" ? (
        <Change of={of} verb="Resume" done={done} />
      ) : (
        <Change of={of} verb="Pause" done={done} disabled={over && "It makes no more runs."} />
      )}
      <ActionButton
        name="Cancel"
        danger
        disabled={over && !(of.queued + of.running) && "It has ended."}
        dialog={(close) => <Cancel of={of} close={close} done={done} />}
      />
    </span>
  );
}

function Change(props: { of: BackfillView; verb: "Pause" | "Resume"; done: () => void; disabled?: string | false }) {
  const { of, verb } = props;
  const path = { backfill_id: of.backfill_id };
  const route =
    verb === "Pause"
      ? ("POST /api/v1/backfills/{backfill_id}/pause" as const)
      : ("POST /api/v1/backfills/{backfill_id}/resume" as const);
  return (
    <ActionButton
      name={verb}
      disabled={props.disabled ?? false}
      dialog={(close) => (
        <ActionDialog
          title={`${verb} the backfill of ${of.dag_id}`}
          verb={verb}
          role="operator"
          about={{ dag: of.dag_id }}
          close={close}
          cli={command("backfills", verb.toLowerCase(), of.backfill_id)}
          request={{ method: "POST", path: urlOf(route, { path }) }}
          act={async () => {
            await call(route, { path });
            props.done();
            return `The backfill is ${verb === "Pause" ? "paused" : "resumed"}.`;
          }}
        >
          <p>
            {verb === "Pause"
              ? `No further run is made; ${of.running + of.queued} that it has made go on, ${of.left} are to come.`
              : `It goes on with the ${of.left} runs to come.`}
          </p>
        </ActionDialog>
      )}
    />
  );
}

function Cancel({ of, close, done }: { of: BackfillView; close: () => void; done: () => void }) {
  const active = of.running + of.queued;
  const over = !["running", "paused"].includes(of.state);
  const [running, setRunning] = useState(over);
  const [reason, setReason] = useState("");
  const path = { backfill_id: of.backfill_id };
  const body = { running, ...(reason && { reason }) };
  return (
    <ActionDialog
      title={`Cancel the backfill of ${of.dag_id}`}
      verb="Cancel the backfill"
      role="operator"
      about={{ dag: of.dag_id }}
      danger
      close={close}
      cli={command(
        "backfills",
        "cancel",
        of.backfill_id,
        running && "--running",
        ...(reason ? ["--reason", reason] : []),
      )}
      request={{ method: "POST", path: urlOf("POST /api/v1/backfills/{backfill_id}/cancel", { path }), body }}
      act={async () => {
        await call("POST /api/v1/backfills/{backfill_id}/cancel", { path, body });
        done();
        return "The backfill is cancelled.";
      }}
    >
      <p>
        {of.left} runs are not made. The same backfill, started again, makes what is missing.
      </p>
      {active > 0 && (
        <Check label={`Also cancel the ${active} runs that have not ended`} value={running} set={setRunning} />
      )}
      <label class="field">
        Reason
        <input value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
      </label>
    </ActionDialog>
  );
}

const PLAN: readonly Column<PlannedRunView>[] = [
  { name: "#", kind: "right", show: (run) => run.number },
  { name: "State", show: (run) => <State name={run.state} /> },
  {
    name: "For",
    show: (run) => run.partition ?? run.logical_time?.replace("T", " ").replace(/(:00)?Z$/, " UTC") ?? "",
  },
  {
    name: "Run",
    kind: "wide",
    show: (run) =>
      run.run_id ? (
        <>
          <a href={to("runs", run.run_id)}>
            <code>{run.run_id.slice(-8)}</code>
          </a>
          {run.exists && <span class="faint"> existed</span>}
        </>
      ) : (
        <span class="faint">not made yet</span>
      ),
  },
];

export function Backfill({ id }: { id: string }) {
  const path = { backfill_id: id };
  const filter = { kinds: ["run"] };
  const found = useResource(
    `backfill ${id}`,
    (signal) => call("GET /api/v1/backfills/{backfill_id}", { path }, signal),
    { filter, every: POLL_MS },
  );
  const plan = usePages(
    `backfill plan ${id}`,
    (wanted, signal) => call("GET /api/v1/backfills/{backfill_id}/plan", { path, query: { ...wanted } }, signal),
    { filter, every: POLL_MS },
  );
  return (
    <Loaded of={found} what="the backfill">
      {(backfill) => (
        <>
          <Heading title={`Backfill of ${backfill.dag_id}`}>
            <BackfillState of={backfill} />
            <Actions of={backfill} done={found.reload} />
          </Heading>
          {backfill.reason && <p class="reason">{backfill.reason}</p>}
          <Progress of={backfill} />
          <Facts
            of={[
              ["DAG", <a href={to("dags", backfill.dag_id)}>{backfill.dag_id}</a>],
              ["Range", rangeOf(backfill)],
              ["Order", backfill.newest_first ? "the newest first" : "the oldest first"],
              [
                "Makes",
                { missing: "what is missing", failed: "what is missing or failed", all: "all, again" }[
                  backfill.reprocess
                ] ?? backfill.reprocess,
              ],
              ["At once", backfill.max_active_runs ?? "as many as the DAG allows"],
              ["By", backfill.created_by],
              ["Since", <Ago at={backfill.created_at} />],
              ["Ended", backfill.ended_at && <Ago at={backfill.ended_at} />],
              ["Description", backfill.description],
              ["Id", <Id id={backfill.backfill_id} />],
            ]}
          />
          {backfill.params && <Json value={backfill.params} label="the params" />}
          <h2>Its plan</h2>
          <Loaded of={plan} what="the plan">
            {(runs) => (
              <Table label="Plan" rows={runs} columns={PLAN} id={(run) => String(run.number)} more={plan.more} />
            )}
          </Loaded>
        </>
      )}
    </Loaded>
  );
}
