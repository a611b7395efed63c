import type { AttemptView, TaskDetail, TaskErrorView } from "#routes";
import { useMemo, useState } from "preact/hooks";
import { call } from "../core/api";
import { useResource } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { bytes } from "../core/time";
import { ActionButton } from "../ui/dialog";
import { Ago, Copy, Empty, Facts, Heading, Id, Json, Loaded, State, Tabs, Took } from "../ui/parts";
import { LazyTrace } from "./lazy";
import { askForBeginning, Output } from "./output";
import { Clear, MarkDialog, taskName } from "./run";

export function Task({ run, task }: { run: string; task: string }) {
  const found = useResource(
    `task ${run} ${task}`,
    (signal) => call("GET /api/v1/runs/{run_id}/tasks/{task}", { path: { run_id: run, task } }, signal),
    {
      filter: { kinds: ["run", "task"], runs: [run] },
      when: (change) => change.kind === "run" || change.task_id === task.replace(/\.\d+$/, ""),
    },
  );
  // Its output is asked for together with it: of most that is all that there is to ask for.
  const beginning = useMemo(() => (tabOf() === "output" ? askForBeginning(run, task, attemptOf()) : undefined), [run, task]);
  return (
    <Loaded of={found} what="the task">
      {(detail) => <Shown task={detail} done={found.reload} beginning={beginning} />}
    </Loaded>
  );
}

const TABS = ["output", "result", "trace", "facts"];

function tabOf(): string {
  const shown = address.value.query.get("tab") ?? "";
  return TABS.includes(shown) ? shown : "output";
}

/** Return the attempt that the address names; undefined for the latest one. */
function attemptOf(): number | undefined {
  return Number(address.value.query.get("attempt")) || undefined;
}

interface Of {
  task: TaskDetail;
  done: () => void;
  beginning: ReturnType<typeof askForBeginning> | undefined;
}

function Shown({ task, done, beginning }: Of) {
  const tab = tabOf();
  const name = taskName(task);
  const here = to("runs", task.run_id, "tasks", name);
  const attempt = attemptOf() ?? task.attempt ?? 0;
  // It is of the latest attempt of that moment: when another one has begun it is asked for anew.
  const [first] = useState(attempt);
  const earlier = task.attempts.find((each) => each.attempt === attempt && attempt !== task.attempt);
  const started = earlier ? earlier.started_at : task.started_at;
  const ended = earlier ? earlier.ended_at : task.ended_at;
  const error = earlier ? earlier.error : task.error;
  return (
    <>
      <Heading title={name}>
        <State name={earlier?.state ?? task.state} />
        <div class="actions">
          <ActionButton
            name="Clear"
            dialog={(close) => <Clear run={task} task={name} close={close} done={done} />}
          />
          <ActionButton
            name="Mark"
            dialog={(close) => <MarkDialog run={task} task={name} close={close} done={done} />}
          />
        </div>
      </Heading>
      <Facts
        of={[
          ["DAG", <a href={to("dags", task.dag_id)}>{task.dag_id}</a>],
          ["Run", <a href={to("runs", task.run_id)}>{task.run_id.slice(-8)}</a>],
          ["Before", <a href={`${to("tasks")}?dag=${encodeURIComponent(task.dag_id)}&task=${encodeURIComponent(task.task_id)}`}>in other runs</a>],
          ["Started", <Ago at={started} />],
          ["Queued for", task.queued_at && started && !earlier && <Took from={task.queued_at} to={started} />],
          ["Took", <Took from={started} to={ended} />],
          ["Worker", earlier ? earlier.worker : task.worker],
          ["Operator", task.operator],
          ["Memory", (earlier?.peak_memory ?? task.peak_memory) && bytes((earlier ?? task).peak_memory!)],
        ]}
      />
      {task.waits_for && <p class="reason">It waits for {task.waits_for}.</p>}
      {task.state === "none" && <p class="reason">It has not started: it is not ready yet.</p>}
      {task.attempts.length > 0 && <Attempts task={task} now={attempt} />}
      {error && <Failure error={error} />}
      <Tabs
        label="Parts of the task"
        now={tab}
        tabs={TABS.map((each) => ({
          id: each,
          name: { output: "Output", result: "Result", trace: "Trace", facts: "Rendered and callbacks" }[each]!,
          href: `${here}?tab=${each}${attempt ? `&attempt=${attempt}` : ""}`,
        }))}
      />
      {tab === "output" && <Output task={task} attempt={attempt} beginning={attempt === first ? beginning : undefined} />}
      {tab === "result" && <Result task={task} />}
      {tab === "trace" && <LazyTrace of={{ kind: "run", id: task.run_id, task: name }} />}
      {tab === "facts" && <More task={task} />}
    </>
  );
}

function Attempts({ task, now }: { task: TaskDetail; now: number }) {
  const all: readonly Pick<AttemptView, "attempt" | "state">[] = [
    ...task.attempts.filter((each) => each.attempt !== task.attempt),
    { attempt: task.attempt ?? 0, state: task.state },
  ];
  return (
    <div class="chips" role="group" aria-label="Attempts">
      {all.map((each) => (
        <button
          key={each.attempt}
          type="button"
          class="chip"
          aria-pressed={each.attempt === now}
          onClick={() => setQuery({ attempt: String(each.attempt) })}
        >
          Attempt {each.attempt} <State name={each.state ?? "failed"} />
        </button>
      ))}
    </div>
  );
}

/** An error: what it says first, the traceback below, from the user's own code on. */
function Failure({ error }: { error: TaskErrorView }) {
  return (
    <div class="panel bad" role="region" aria-label="Error">
      <p>
        <strong>{error.type}</strong>: {error.message}
      </p>
      {error.final && <p class="faint">It was not tried again: the error is final.</p>}
      {error.traceback && (
        <div class="json">
          <pre class="traceback" tabIndex={0} role="region" aria-label="Traceback">
            {error.traceback.trimEnd()}
          </pre>
          <Copy text={error.traceback} what="the traceback" />
        </div>
      )}
    </div>
  );
}

function Result({ task }: { task: TaskDetail }) {
  const size = task.result_bytes ?? 0;
  const pushed = Object.entries(task.results ?? {});
  const whole = `/api/v1/runs/${task.run_id}/tasks/${encodeURIComponent(taskName(task))}/result`;
  if (task.result_pruned) return <Empty>Retention has removed the result.</Empty>;
  if (task.state !== "success" && !size && !pushed.length) return <Empty>It has no result yet.</Empty>;
  return (
    <>
      <Json value={task.result} label="the result" />
      <p class="faint">
        {bytes(size)}
        {task.result_keeper && `, in ${task.result_keeper} while the run lasts`}
        {task.result_stored && ", in the result store"}.{" "}
        <a href={whole} download={`${task.task_id}.json`} target="_blank" rel="noreferrer">
          Download it whole
        </a>
      </p>
      {pushed.map(([key, value]) => (
        <section key={key}>
          <h2>{key}</h2>
          <Json value={value} label={key} />
        </section>
      ))}
    </>
  );
}

function More({ task }: { task: TaskDetail }) {
  const rendered = Object.entries(task.rendered ?? {});
  const [open, setOpen] = useState<number>();
  if (!rendered.length && !task.callbacks?.length) {
    return <Empty>It has no template fields, and no function was called about it.</Empty>;
  }
  return (
    <>
      {rendered.map(([name, text]) => (
        <section key={name}>
          <h2>{name}</h2>
          <Json value={text} label={name} />
        </section>
      ))}
      {task.callbacks?.map((each) => (
        <div class="panel" key={each.id}>
          <div class="line">
            <State name={each.state} /> {each.kind}: {each.name}, tried {each.tries} times
          </div>
          {each.error && <p>{each.error}</p>}
          {each.output && (
            <button type="button" onClick={() => setOpen(open === each.id ? undefined : each.id)}>
              {open === each.id ? "Hide" : "Show"} what it wrote
            </button>
          )}
          {open === each.id && <pre>{each.output}</pre>}
        </div>
      ))}
      <Id id={task.id} />
    </>
  );
}
