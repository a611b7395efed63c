import type { ApprovalView } from "#routes";
import { useState } from "preact/hooks";
import { call } from "../core/api";
import { usePages, useResource } from "../core/resource";
import { to } from "../core/router";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { Fields, valuesOf, type Typed } from "../ui/form";
import { Ago, Empty, Facts, Heading, Loaded, Table, type Column } from "../ui/parts";

const COLUMNS: readonly Column<ApprovalView>[] = [
  {
    name: "Question",
    kind: "wide",
    show: (approval) => <a href={to("approvals", approval.id)}>{approval.title}</a>,
  },
  { name: "Options", show: (approval) => approval.options.join(", ") },
  { name: "By", show: (approval) => approval.by.join(", ") },
  {
    name: "Votes",
    kind: "right",
    show: (approval) => `${approval.votes?.length ?? 0} of ${approval.quorum ?? 1}`,
  },
  {
    name: "Task",
    show: (approval) => (
      <a href={to("runs", approval.run_id, "tasks", approval.task_id)}>
        {approval.dag_id}.{approval.task_id}
      </a>
    ),
  },
  { name: "Since", show: (approval) => <Ago at={approval.since} /> },
];

export function Approvals() {
  const approvals = usePages(
    "approvals",
    (wanted, signal) => call("GET /api/v1/approvals", { query: { ...wanted } }, signal),
    { filter: { kinds: ["task"] }, every: 10_000 },
  );
  return (
    <>
      <Heading title="Approvals" />
      <Loaded of={approvals} what="approvals">
        {(found) =>
          found.length ? (
            <Table label="Approvals" rows={found} columns={COLUMNS} id={(each) => each.id} more={approvals.more} />
          ) : (
            <Empty>
              <p>Nothing waits for a person.</p>
              <code>{command("approvals", "list")}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

export function Approval({ id }: { id: string }) {
  const found = useResource(
    `approval ${id}`,
    (signal) => call("GET /api/v1/approvals/{approval}", { path: { approval: id } }, signal),
    { every: 10_000 },
  );
  return (
    <Loaded of={found} what="the approval">
      {(approval) => (
        <>
          <Heading title={approval.title}>
            <div class="actions">
              {approval.state === "waiting" &&
                approval.options.map((option) => (
                  <ActionButton
                    key={option}
                    name={option}
                    dialog={(close) => (
                      <AnswerDialog approval={approval} option={option} close={close} done={found.reload} />
                    )}
                  />
                ))}
            </div>
          </Heading>
          {approval.details && <p>{approval.details}</p>}
          <Facts
            of={[
              ["State", approval.state],
              ["Answer", approval.answer],
              ["By", approval.by.join(", ")],
              ["Votes needed", approval.quorum],
              ["Since", <Ago at={approval.since} />],
              ["DAG", <a href={to("dags", approval.dag_id)}>{approval.dag_id}</a>],
              ["Task", <a href={to("runs", approval.run_id, "tasks", approval.task_id)}>{approval.task_id}</a>],
              ["Escalated", approval.escalated ? "yes" : null],
            ]}
          />
          {approval.votes && approval.votes.length > 0 && (
            <Table
              label="Votes"
              rows={approval.votes}
              id={(vote) => vote.person}
              columns={[
                { name: "Who", show: (vote) => vote.person },
                { name: "Answer", show: (vote) => vote.option },
                { name: "Comment", kind: "wide", show: (vote) => vote.comment ?? "" },
                { name: "When", show: (vote) => <Ago at={vote.answered_at} /> },
              ]}
            />
          )}
        </>
      )}
    </Loaded>
  );
}

function AnswerDialog(props: { approval: ApprovalView; option: string; close: () => void; done: () => void }) {
  const { approval, option } = props;
  const [typed, setTyped] = useState<Typed>({});
  const [comment, setComment] = useState("");
  let fault: string | undefined;
  let values: Record<string, unknown> = {};
  try {
    values = approval.form ? valuesOf(approval.form as never, typed) : {};
  } catch (error) {
    fault = (error as Error).message;
  }
  const path = { approval: approval.id };
  const body = { option, values, comment: comment || null };
  const flags = Object.entries(values).flatMap(([name, value]) => ["--value", `${name}=${JSON.stringify(value)}`]);
  return (
    <ActionDialog
      title={`${approval.title}: ${option}`}
      verb={option}
      role="operator"
      about={{ dag: approval.dag_id }}
      close={props.close}
      ready={!fault}
      cli={command("approvals", "answer", approval.id, option, ...flags, comment && "--comment", comment)}
      request={{ method: "POST", path: `/api/v1/approvals/${encodeURIComponent(approval.id)}`, body }}
      act={async () => {
        await call("POST /api/v1/approvals/{approval}", { path, body });
        props.done();
        return `Your answer is recorded: ${option}.`;
      }}
    >
      {approval.form && <Fields schema={approval.form as never} typed={typed} set={setTyped} />}
      {fault && <p class="reason">{fault}</p>}
      <label class="field">
        Comment
        <input value={comment} onInput={(event) => setComment(event.currentTarget.value)} />
      </label>
    </ActionDialog>
  );
}
