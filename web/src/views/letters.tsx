import type { DeadLetterDetail, DeadLetterGroup, DeadLetterView, Resent } from "#routes";
import { useState } from "preact/hooks";
import { call } from "../core/api";
import { usePages, useResource } from "../core/resource";
import { address, navigate, setQuery, to } from "../core/router";
import { bytes } from "../core/time";
import { diff, near } from "../core/diff";
import { ActionButton, ActionDialog, command, quoted } from "../ui/dialog";
import { JsonField, faultOf } from "../ui/form";
import { Ago, Empty, Facts, Heading, Json, Loaded, Shape, State, Table, type Column } from "../ui/parts";
import { useSelection } from "../ui/selection";

const MOST = 1000; // of one request
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
    { main: true, every: POLL_MS },
  );
  const reload = () => {
    summary.reload();
    letters.reload();
  };
  const selection = useSelection();
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
            <>
              <div class="bulk" role="group" aria-label="Actions on many dead letters">
                <span>{selection.chosen.size} selected</span>
                <span class="actions">
                  {(["Resend", "Discard"] as const).map((verb) => (
                    <Bulk
                      key={verb}
                      verb={verb}
                      body={{ ids: [...selection.chosen].map(Number) }}
                      disabled={!selection.chosen.size && "Select dead letters by their boxes or the key x."}
                      done={() => {
                        selection.set([]);
                        reload();
                      }}
                    />
                  ))}
                </span>
              </div>
              <Table
                label="Dead letters"
                rows={found}
                columns={COLUMNS}
                id={(each) => String(each.id)}
                more={letters.more}
                selection={selection}
              />
            </>
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
        <Bulk body={{ ...selectionOf(group), limit: MOST }} about={group.reason} verb="Resend" done={reload} />
        <Bulk body={{ ...selectionOf(group), limit: MOST }} about={group.reason} verb="Discard" done={reload} />
      </span>
    ),
  },
];

function selectionOf(group: DeadLetterGroup): Record<string, string> {
  return { kind: group.kind, reason: group.reason, ...(group.dag_id ? { dag: group.dag_id } : {}) };
}

interface BulkProps {
  verb: "Resend" | "Discard";
  body: { ids?: number[]; limit?: number; kind?: string; reason?: string; dag?: string };
  about?: string;
  disabled?: string | false;
  done: () => void;
}

function Bulk(props: BulkProps) {
  return (
    <ActionButton
      name={props.verb}
      danger={props.verb === "Discard"}
      disabled={props.disabled ?? false}
      dialog={(close) => <BulkDialog {...props} close={close} />}
    />
  );
}

/** Says of each letter what sending it would do, before any is sent. */
function BulkDialog({ verb, about, done, close, ...opened }: BulkProps & { close: () => void }) {
  // As it was opened: rows leave the list below it, and what was selected still is what is meant.
  const [body] = useState(opened.body);
  const resend = verb === "Resend";
  const route = resend ? "POST /api/v1/dead-letters/resend" : "POST /api/v1/dead-letters/discard";
  const { ids, ...filter } = body;
  const plan = useResource(`bulk letters ${verb} ${JSON.stringify(body)}`, async (signal) => {
    const answer = await call(route, { body: { ...body, dry_run: true } as never }, signal);
    return answer as unknown as BulkAnswer;
  });
  const count = (plan.value?.resent ?? plan.value?.discarded ?? []).length;
  const refused = plan.value?.refused ?? [];
  const flags = Object.entries(filter).flatMap(([name, value]) => [`--${name}`, String(value)]);
  return (
    <ActionDialog
      title={`${verb} dead letters`}
      verb={`${verb} ${count}`}
      danger={!resend}
      role="operator"
      close={close}
      ready={count > 0}
      cli={command("dead-letters", verb.toLowerCase(), ...(ids ?? []), ...flags)}
      request={{ method: "POST", path: route.slice(5), body }}
      act={async () => {
        const answer = (await call(route, { body: body as never })) as unknown as BulkAnswer;
        done();
        const why = answer.refused?.length ? `, ${answer.refused.length} refused: ${answer.refused[0]!.reason}` : "";
        const sent = (answer.resent ?? answer.discarded ?? []).length;
        return `${sent} ${resend ? "sent again" : "discarded"}${why}.`;
      }}
    >
      {about && <p>{about}</p>}
      {!resend && <p>They are kept until they are old, and cannot be sent again.</p>}
      <Loaded of={plan} what="what would happen">
        {(found) => (
          <div class="panel" role="region" aria-label="What would happen">
            <strong>
              {count} would be {resend ? "sent again" : "discarded"}
              {refused.length > 0 && `, ${refused.length} would be refused`}
            </strong>
            <ul class="plan" tabIndex={0} aria-label="Dead letters">
              {found.resent?.slice(0, 50).map((each) => (
                <li key={each.id}>
                  {each.id}: {each.would}
                </li>
              ))}
              {refused.slice(0, 50).map((each) => (
                <li key={each.id} class="line">
                  <State name="failed" word="refused" /> {each.id}: {each.reason}
                </li>
              ))}
            </ul>
            {found.more && <p class="reason">There are more than {MOST}: these first, and the rest when you repeat it.</p>}
          </div>
        )}
      </Loaded>
    </ActionDialog>
  );
}

interface BulkAnswer {
  resent?: readonly Resent[];
  refused?: readonly { id: number; reason: string }[];
  discarded?: readonly number[];
  more?: boolean;
}

/** Links to the events that a letter is about, where its payload names some. */
function eventsOf(payload: unknown) {
  const named = (payload as { events?: unknown } | null)?.events;
  const events = Array.isArray(named) ? named.filter((each): each is string => typeof each === "string") : [];
  if (!events.length) return null;
  return (
    <span class="line">
      {events.slice(0, 5).map((each) => (
        <a key={each} href={to("events", each)}>
          {each.slice(-8)}
        </a>
      ))}
      {events.length > 5 && ` and ${events.length - 5} more`}
    </span>
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
                dialog={(close) => <ResendDialog letter={found} close={close} done={letter.reload} />}
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
              ["Events", eventsOf(found.payload)],
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

/** Edits a payload beside the lines that differ from the original, says what would come of it, and sends it. */
function ResendDialog({ letter, close, done }: { letter: DeadLetterDetail; close: () => void; done: () => void }) {
  const original = JSON.stringify(letter.payload, null, 2);
  const [text, setText] = useState(original);
  const fault = letter.editable ? faultOf(text) : undefined;
  const edited = letter.editable && text !== original;
  const body = edited && !fault ? { payload: JSON.parse(text) as unknown } : {};
  const path = { number: String(letter.id) };
  const tried = useResource(`try ${letter.id} ${fault ?? JSON.stringify(body)}`, async (signal) => {
    if (fault) return null;
    return (await call(
      "POST /api/v1/dead-letters/{number}/resend",
      { path, body: { ...body, dry_run: true } as never },
      signal,
    )) as unknown as Resent;
  });
  return (
    <ActionDialog
      title={`Send dead letter ${letter.id} again`}
      verb="Send again"
      role="operator"
      about={{ dag: letter.dag_id ?? undefined }}
      wide
      close={close}
      ready={!fault && tried.value != null && !tried.value.refused}
      cli={
        edited && !fault
          ? `echo ${quoted(JSON.stringify(body.payload))} | ${command("dead-letters", "edit", letter.id, "--payload", "-")}`
          : command("dead-letters", "resend", letter.id)
      }
      request={{ method: "POST", path: `/api/v1/dead-letters/${letter.id}/resend`, body }}
      act={async () => {
        const answer = (await call("POST /api/v1/dead-letters/{number}/resend", {
          path,
          body,
          revision: letter.revision,
        })) as unknown as Resent;
        done();
        if (answer.run_id) navigate(to("runs", answer.run_id));
        return "It was sent again.";
      }}
    >
      <p class="reason">{letter.reason}</p>
      {letter.editable ? (
        <>
          <JsonField label="Payload" text={text} set={setText} rows={14} />
          {edited && <Differences before={original} after={text} />}
        </>
      ) : (
        <p>It goes out as it is: this kind cannot be edited.</p>
      )}
      <div class="panel" role="region" aria-label="What would happen">
        {tried.error || tried.value?.refused ? (
          <span class="state s-failed">
            <Shape name="failed" /> It would be refused: {tried.error?.message ?? tried.value!.refused}
          </span>
        ) : tried.value ? (
          <>
            <span class="state s-success">
              <Shape name="success" /> {tried.value.would}
            </span>
            {tried.value.params && <code>{JSON.stringify(tried.value.params)}</code>}
          </>
        ) : (
          <span class="faint">{fault ?? "Trying…"}</span>
        )}
      </div>
    </ActionDialog>
  );
}

/** The lines of both texts in order: removed, added, and those that stay around them. */
function Differences({ before, after }: { before: string; after: string }) {
  return (
    <pre role="region" aria-label="What is changed" tabIndex={0} class="diff">
      {near(diff(before, after)).map(({ sign, text }, index) => (
        <span key={index} class={sign === "+" ? "added" : sign === "-" ? "removed" : "faint"}>
          {`${sign} ${text}\n`}
        </span>
      ))}
    </pre>
  );
}
