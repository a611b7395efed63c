/** Actions on many runs, or on tasks of many: those that are selected, or all that a filter takes. */
import type { BulkRunView, BulkTasks, BulkTasksView, BulkView } from "#routes";
import { useState } from "preact/hooks";
import { call } from "../core/api";
import { useResource } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { Check } from "../ui/check";
import { ActionButton, ActionDialog, command, quoted } from "../ui/dialog";
import { Problem, State } from "../ui/parts";
import type { Selection } from "../ui/selection";

const MOST = 1000; // of one request; a longer list is told of, and the rest is for a second time
const PART = 200;

type Kind = "runs" | "tasks";
type Verb = "retry" | "clear" | "cancel" | "mark";
type Mark = "success" | "failed" | "skipped";
type Planned = BulkRunView & Partial<BulkTasksView>;

/** A run, or a run with the tasks of it that are chosen. */
export interface Chosen {
  run_id: string;
  /** Null for what it is now: the plan then says it. */
  cleared: number | null;
  chosen?: readonly string[];
}

export interface BulkProps {
  kind: Kind;
  selection: Selection;
  /** What the selected rows stand for, run by run. */
  chosen: readonly Chosen[];
  /** The filter of the list, as requests take it. */
  filter: Record<string, unknown>;
  done: () => void;
}

const VERBS: Record<Kind, readonly [Verb, string][]> = {
  runs: [
    ["retry", "Retry"],
    ["clear", "Clear"],
    ["cancel", "Cancel runs"],
    ["mark", "Mark"],
  ],
  tasks: [
    ["clear", "Clear"],
    ["mark", "Mark"],
  ],
};

/** The bar above a list: what is selected, and what can be done with it. */
export function BulkBar(props: BulkProps) {
  const { selection, kind, filter } = props;
  const count = selection.chosen.size;
  const filtered = Object.values(filter).some((each) => (Array.isArray(each) ? each.length : each));
  const all = address.value.query.has("all");
  const whole = all && filtered;
  return (
    <div class="bulk" role="group" aria-label={`Actions on many ${kind}`}>
      <span>{whole ? `All that the filter takes` : `${count} selected`}</span>
      <Check label="All that the filter takes" value={whole} set={(on) => setQuery({ all: on ? "yes" : undefined })} disabled={!filtered} />
      {count > 0 && (
        <button type="button" class="quiet" onClick={() => selection.set([])}>
          Select none
        </button>
      )}
      <span class="actions">
        {VERBS[kind].map(([verb, name]) => (
          <ActionButton
            key={verb}
            name={name}
            danger={verb === "cancel"}
            disabled={!whole && !count && `Select ${kind} by their boxes or the key x, or take all of a filter.`}
            dialog={(close) => <BulkDialog {...props} verb={verb} whole={whole} close={close} />}
          />
        ))}
      </span>
    </div>
  );
}

function BulkDialog(props: BulkProps & { verb: Verb; whole: boolean; close: () => void }) {
  const { kind, verb, whole } = props;
  // As it was opened: rows leave the list below it, and what was selected still is what is meant.
  const [selected] = useState(props.chosen);
  const [state, setState] = useState<Mark>("success");
  const [reason, setReason] = useState("");
  const [downstream, setDownstream] = useState(kind === "tasks");
  const [onlyFailed, setOnlyFailed] = useState(false);
  const [newest, setNewest] = useState(false);
  const [emit, setEmit] = useState(false);
  const [progress, setProgress] = useState("");
  const options = {
    ...(verb === "mark" && { state, ...(emit && { emit }) }),
    ...(reason && { reason }),
    ...(verb === "clear" && kind === "tasks" && downstream && { downstream }),
    ...(verb === "clear" && kind === "runs" && onlyFailed && { only_failed: onlyFailed }),
    ...((verb === "clear" || verb === "retry") && newest && { newest }),
  };
  const subjects = whole
    ? { filter: props.filter, limit: MOST }
    : { runs: selected.map(({ run_id, cleared, chosen }) => ({ run_id, cleared, ...(chosen && { chosen }) })) };
  const body = { action: verb, ...subjects, ...options };
  const route = `POST /api/v1/${kind}/bulk` as "POST /api/v1/runs/bulk";
  const plan = useResource(
    `bulk ${kind} ${JSON.stringify(body)}`,
    (signal) =>
      call(route, { body: { ...body, dry_run: true } as never }, signal) as Promise<BulkView | BulkTasks>,
  );
  const planned = (plan.value?.runs ?? []) as readonly Planned[];
  const fit = planned.filter((each) => each.outcome === "planned");
  // Exactly what the plan says: each with its clear number, so what has changed meanwhile is left.
  const exact = fit.map(({ run_id, cleared, chosen }) => ({ run_id, cleared, ...(chosen && { chosen }) }));
  const name = { retry: "Retry", clear: "Clear", cancel: "Cancel", mark: "Mark" }[verb];
  const noun = (count: number) => (count === 1 ? kind.slice(0, -1) : kind);
  const count = kind === "runs" ? fit.length : fit.reduce((sum, each) => sum + (each.chosen?.length ?? 0), 0);
  return (
    <ActionDialog
      title={whole ? `${name} all ${kind} of the filter` : `${name} the selected ${kind}`}
      verb={`${name} ${count} ${noun(count)}`}
      role="operator"
      danger={verb === "cancel"}
      close={props.close}
      ready={count > 0}
      cli={cliOf({ ...props, chosen: selected }, options, plan.value)}
      request={{ method: "POST", path: `/api/v1/${kind}/bulk`, body: { action: verb, runs: exact, ...options } }}
      act={async () => {
        let done = 0;
        let left = 0;
        let why = "";
        for (let start = 0; start < exact.length; start += PART) {
          const part = { action: verb, runs: exact.slice(start, start + PART), ...options };
          const answer = (await call(route, { body: part as never })) as BulkView;
          done += answer.counts["done"] ?? 0;
          left += answer.counts["left"] ?? 0;
          why ||= answer.runs.find((each) => each.outcome === "left")?.detail ?? "";
          setProgress(`${Math.min(start + PART, exact.length)} of ${exact.length} runs`);
        }
        props.selection.set([]);
        props.done();
        const past = { retry: "retried", clear: "cleared", cancel: "cancelled", mark: `marked as ${state}` }[verb];
        return `${done} ${noun(done)} ${past}${left ? `, ${left} left: ${why}` : ""}.`;
      }}
    >
      {verb === "mark" && (
        <label class="field">
          As
          <select value={state} onChange={(event) => setState(event.currentTarget.value as Mark)}>
            {(kind === "runs" ? ["success", "failed"] : ["success", "failed", "skipped"]).map((each) => (
              <option key={each}>{each}</option>
            ))}
          </select>
        </label>
      )}
      {verb === "mark" && state === "success" && (
        <Check label="Emit an event for each outlet" value={emit} set={setEmit} />
      )}
      {verb === "clear" && kind === "tasks" && (
        <Check label="Also all tasks downstream of them" value={downstream} set={setDownstream} />
      )}
      {verb === "clear" && kind === "runs" && (
        <Check label="Only tasks that failed or could not start" value={onlyFailed} set={setOnlyFailed} />
      )}
      {(verb === "clear" || verb === "retry") && (
        <Check label="With the newest version of each DAG" value={newest} set={setNewest} />
      )}
      {(verb === "cancel" || (verb === "mark" && state === "failed")) && (
        <label class="field">
          Reason
          <input value={reason} onInput={(event) => setReason(event.currentTarget.value)} />
        </label>
      )}
      {plan.error && <Problem error={plan.error} />}
      {!plan.value && !plan.error && <p class="loading">Looking what would happen…</p>}
      {plan.value && <PlanOf kind={kind} verb={verb} planned={planned} fit={fit} more={Boolean(plan.value.next)} />}
      {progress && <p role="status">{progress}</p>}
    </ActionDialog>
  );
}

function PlanOf(props: {
  kind: Kind;
  verb: Verb;
  planned: readonly Planned[];
  fit: readonly Planned[];
  more: boolean;
}) {
  const { fit, planned, verb } = props;
  const left = planned.filter((each) => each.outcome === "left");
  const tasks = fit.reduce((sum, each) => sum + (each.tasks ?? 0), 0);
  const what = { retry: "run again", clear: "run again", cancel: "", mark: "are marked" }[verb];
  return (
    <div class="panel" role="region" aria-label="What would happen">
      <strong>
        {fit.length} {fit.length === 1 ? "run" : "runs"}
        {what && tasks > 0 && `: ${tasks} ${tasks === 1 ? "task" : "tasks"} ${what}`}
      </strong>
      <ul class="plan" tabIndex={0} aria-label="Runs">
        {fit.slice(0, 50).map((each) => (
          <li key={each.run_id} class="line">
            <State name={each.state} />
            <a href={to("runs", each.run_id)} target="_blank" rel="noreferrer">
              {each.dag_id} {each.run_id.slice(-8)}
            </a>
            {each.chosen && <span class="faint">{each.chosen.join(", ")}</span>}
          </li>
        ))}
      </ul>
      {fit.length > 50 && <p class="faint">and {fit.length - 50} more</p>}
      {props.more && (
        <p class="reason">The filter takes more than {MOST}: these first, and the rest when you do it again.</p>
      )}
      {left.length > 0 && (
        <p class="reason">
          {left.length} left as {left.length === 1 ? "it is" : "they are"}: {left[0]!.detail}
        </p>
      )}
    </div>
  );
}

const FLAGS: Record<string, string> = { run_state: "run-state" };

/** The same as a command: by the filter, or by the plan that is shown, on its stdin. */
function cliOf(
  { kind, verb, whole, filter, chosen }: BulkProps & { verb: Verb; whole: boolean },
  options: Record<string, unknown>,
  plan: BulkView | BulkTasks | undefined,
): string {
  const flags = Object.entries(options)
    .filter(([name]) => name !== "state")
    .flatMap(([name, value]) => [`--${name.replaceAll("_", "-")}`, ...(value === true ? [] : [String(value)])]);
  const head = [kind, verb, ...(verb === "mark" ? [String(options["state"])] : [])];
  if (whole) {
    const filters = Object.entries(filter).flatMap(([name, value]) =>
      (Array.isArray(value) ? value : [value])
        .filter((each) => each !== undefined && each !== "")
        .flatMap((each) => [`--${FLAGS[name] ?? name}`, String(each)]),
    );
    return command(...head, ...filters, ...flags, "--yes");
  }
  const only = chosen.length === 1 ? chosen[0]! : undefined;
  if (only) return command(...head, only.run_id, ...(only.chosen ?? []), ...flags);
  return `echo ${quoted(JSON.stringify(plan ?? {}))} | ${command(...head, ...flags, "--plan", "/dev/stdin", "--yes")}`;
}
