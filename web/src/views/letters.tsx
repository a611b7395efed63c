import type { DeadLetterDetail, DeadLetterGroup, DeadLetterView } from "#routes";
import { useState } from "preact/hooks";
import { call } from "../core/api";
import { usePages, useResource } from "../core/resource";
import { address, navigate, setQuery, to } from "../core/router";
import { bytes } from "../core/time";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { JsonField, faultOf } from "../ui/form";
import { Ago, Empty, Facts, Heading, Json, Loaded, Table, type Column } from "../ui/parts";

const POLL_MS = 10_000; // the stream has no changes of dead letters

const COLUMNS: readonly Column<DeadLetterView>[] = [
  { name: "Letter", show: (letter) => <a href={to("letters", letter.id)}>{letter.id}</a> },
  { name: "Kind", show: (letter) => letter.kind },
  { name: "DAG", show: (letter) => (letter.dag_id ? <a href={to("dags", letter.dag_id)}>{letter.dag_id}</a> : "") },
  { name: "Why", kind: "wide", show: (letter) => letter.reason },
  { name: "Size", kind: "right", show: (letter) => bytes(letter.size), minor: true },
  { name: "Since", show: (letter) => <Ago at={letter.created_at} /> },
];

export function Letters() {
  const { query } = address.value;
  const asked = {
    kind: query.get("kind") ?? undefined,
    dag: query.get("dag") ?? undefined,
    reason: query.get("reason") ?? undefined,
  };
  const summary = useResource(
    "letters summary",
    (signal) => call("GET /api/v1/dead-letters/summary", {}, signal),
    { every: POLL_MS },
  );
  const letters = usePages(
    `letters ${JSON.stringify(asked)}`,
    (wanted, signal) => call("GET /api/v1/dead-letters", { query: { ...asked, ...wanted } }, signal),
    { every: POLL_MS },
  );
  const reload = () => {
    summary.reload();
    letters.reload();
  };
  const filtered = asked.kind || asked.dag || asked.reason;
  return (
    <>
      <Heading title="Dead letters" />
      {filtered && (
        <p>
          Only {[asked.kind, asked.dag, asked.reason].filter(Boolean).join(" · ")}{" "}
          <button type="button" onClick={() => setQuery({ kind: undefined, dag: undefined, reason: undefined })}>
            Show all
          </button>
        </p>
      )}
      <Loaded of={summary} what="the summary">
        {(found) =>
          found.groups.length > 0 && (
            <Table
              label="Dead letters by reason"
              rows={found.groups}
              id={(group) => `${group.kind} ${group.dag_id} ${group.reason}`}
              columns={groupColumns(reload)}
            />
          )
        }
      </Loaded>
      <Loaded of={letters} what="dead letters">
        {(found) =>
          found.length ? (
            <Table label="Dead letters" rows={found} columns={COLUMNS} id={(each) => String(each.id)} more={letters.more} />
          ) : (
            <Empty>
              <p>There is no dead letter: whatever came could be processed.</p>
              <code>{command("dead-letters", "list")}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

const groupColumns = (reload: () => void): readonly Column<DeadLetterGroup>[] => [
  { name: "Count", kind: "right", show: (group) => group.count },
  { name: "Kind", show: (group) => group.kind },
  { name: "DAG", show: (group) => group.dag_id ?? "" },
  {
    name: "Reason",
    kind: "wide",
    show: (group) => (
      <a href={`${to("letters")}?${new URLSearchParams(selectionOf(group)).toString()}`}>{group.reason}</a>
    ),
  },
  { name: "Newest", show: (group) => <Ago at={group.newest} />, minor: true },
  {
    name: "Actions",
    show: (group) => (
      <span class="actions">
        <Bulk group={group} verb="Resend" done={reload} />
        <Bulk group={group} verb="Discard" done={reload} />
      </span>
    ),
  },
];

function selectionOf(group: DeadLetterGroup): Record<string, string> {
  return { kind: group.kind, reason: group.reason, ...(group.dag_id ? { dag: group.dag_id } : {}) };
}

function Bulk({ group, verb, done }: { group: DeadLetterGroup; verb: "Resend" | "Discard"; done: () => void }) {
  const body = { ...selectionOf(group), limit: 1000 };
  const route = verb === "Resend" ? "POST /api/v1/dead-letters/resend" : "POST /api/v1/dead-letters/discard";
  const flags = Object.entries(selectionOf(group)).flatMap(([name, value]) => [`--${name}`, value]);
  return (
    <ActionButton
      name={verb}
      danger={verb === "Discard"}
      dialog={(close) => (
        <ActionDialog
          title={`${verb} ${group.count} dead letters`}
          verb={verb}
          danger={verb === "Discard"}
          role="operator"
          close={close}
          cli={command("dead-letters", verb.toLowerCase(), ...flags, "--limit", 1000)}
          request={{ method: "POST", path: route.slice(5), body }}
          act={async () => {
            const answer = (await call(route, { body })) as {
              resent?: readonly unknown[];
              refused?: readonly { reason: string }[];
              discarded?: readonly unknown[];
            };
            done();
            const refused = answer.refused?.length ?? 0;
            const count = (answer.resent ?? answer.discarded ?? []).length;
            const why = refused ? `, ${refused} refused: ${answer.refused![0]!.reason}` : "";
            return `${count} ${verb === "Resend" ? "sent again" : "discarded"}${why}.`;
          }}
        >
          <p>{group.reason}</p>
          {verb === "Discard" && <p>They are kept until they are old, and cannot be sent again.</p>}
        </ActionDialog>
      )}
    />
  );
}

export function Letter({ id }: { id: string }) {
  const letter = useResource(`letter ${id}`, (signal) =>
    call("GET /api/v1/dead-letters/{number}", { path: { number: id } }, signal),
  );
  return (
    <Loaded of={letter} what="the dead letter">
      {(found) => (
        <>
          <Heading title={`Dead letter ${found.id}`}>
            <div class="actions">
              <ActionButton
                name={found.editable ? "Edit and send again" : "Send again"}
                keys="e"
                disabled={settled(found)}
                dialog={(close) => <Resend letter={found} close={close} done={letter.reload} />}
              />
            </div>
          </Heading>
          <div class="panel bad">
            <strong>{found.reason}</strong>
          </div>
          <Facts
            of={[
              ["Kind", found.kind],
              ["DAG", found.dag_id && <a href={to("dags", found.dag_id)}>{found.dag_id}</a>],
              ["Subject", <code>{found.subject}</code>],
              ["Since", <Ago at={found.created_at} />],
              ["Size", bytes(found.size)],
              ["Sent again", found.resent_at && <Ago at={found.resent_at} />],
              ["Discarded", found.discarded_at && <Ago at={found.discarded_at} />],
            ]}
          />
          <h2>Payload</h2>
          <Json value={found.payload} label="the payload" />
        </>
      )}
    </Loaded>
  );
}

function settled(letter: DeadLetterDetail): string | false {
  if (letter.resent_at) return "It was sent again.";
  return Boolean(letter.discarded_at) && "It was discarded.";
}

/** Edits a payload beside the lines that differ from the original, and sends it. */
function Resend({ letter, close, done }: { letter: DeadLetterDetail; close: () => void; done: () => void }) {
  const original = JSON.stringify(letter.payload, null, 2);
  const [text, setText] = useState(original);
  const fault = letter.editable ? faultOf(text) : undefined;
  const edited = letter.editable && text !== original;
  const body = edited && !fault ? { payload: JSON.parse(text) as unknown } : {};
  return (
    <ActionDialog
      title={`Send dead letter ${letter.id} again`}
      verb="Send again"
      role="operator"
      about={{ dag: letter.dag_id ?? undefined }}
      close={close}
      ready={!fault}
      cli={
        edited
          ? `${command("dead-letters", "edit", letter.id, "--payload", "-")} < payload.json`
          : command("dead-letters", "resend", letter.id)
      }
      request={{ method: "POST", path: `/api/v1/dead-letters/${letter.id}/resend`, body }}
      act={async () => {
        const answer = await call("POST /api/v1/dead-letters/{number}/resend", {
          path: { number: String(letter.id) },
          body,
          revision: letter.revision,
        });
        const { run_id: run } = answer as { run_id?: string | null };
        done();
        if (run) navigate(to("runs", run));
        return "It was sent again.";
      }}
    >
      {letter.editable ? (
        <>
          <JsonField label="Payload" text={text} set={setText} rows={14} />
          {edited && <Differences before={original} after={text} />}
        </>
      ) : (
        <p>It goes out as it is: this kind cannot be edited.</p>
      )}
    </ActionDialog>
  );
}

function Differences({ before, after }: { before: string; after: string }) {
  const old = new Set(before.split("\n"));
  const fresh = new Set(after.split("\n"));
  const removed = before.split("\n").filter((line) => !fresh.has(line));
  const added = after.split("\n").filter((line) => !old.has(line));
  return (
    <pre role="region" aria-label="What is changed" tabIndex={0}>
      {removed.map((line) => `- ${line}\n`)}
      {added.map((line) => `+ ${line}\n`)}
    </pre>
  );
}
