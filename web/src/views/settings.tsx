/** Pools, connections and variables: lists, and dialogs that set and delete. Secrets are never shown. */
import type { ConnectionView, PoolView, RateLimitView, VariableView } from "#routes";
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { ApiError, call, urlOf } from "../core/api";
import { lacking } from "../core/me";
import { usePages, useResource } from "../core/resource";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { JsonField, faultOf } from "../ui/form";
import { Ago, Empty, Loaded, Table } from "../ui/parts";

const MASK = "***";

interface Opened {
  close: () => void;
  done: () => void;
}

/** Delete something: what will be, the command and the request. */
function Deletion(
  props: Opened & {
    title: string;
    role: "operator" | "admin";
    cli: string;
    path: string;
    act: () => Promise<unknown>;
    said: string;
    children: ComponentChildren;
  },
) {
  const { path, act, done, said, children, ...shown } = props;
  return (
    <ActionDialog
      {...shown}
      verb="Delete"
      danger
      request={{ method: "DELETE", path }}
      act={async () => {
        await act();
        done();
        return said;
      }}
    >
      {children}
    </ActionDialog>
  );
}

type Stored = Pick<ConnectionView | VariableView, "source" | "updated_at">;

/** Edit and delete what is stored; what the environment sets is changed there. */
function Changes(props: {
  of: Stored;
  edit: (close: () => void) => ComponentChildren;
  remove: (close: () => void) => ComponentChildren;
}) {
  const disabled = props.of.source === "environment" && "It is set in the daemon's environment.";
  return (
    <>
      <ActionButton name="Edit" disabled={disabled} dialog={props.edit} />
      <ActionButton name="Delete" danger disabled={disabled} dialog={props.remove} />
    </>
  );
}

function From({ of }: { of: Stored }) {
  return of.source === "environment" ? <>the environment</> : <Ago at={of.updated_at} />;
}

function Bar({ used, of }: { used: number; of: number | null | undefined }) {
  const share = of ? Math.min(1, used / of) : used ? 1 : 0;
  return (
    <svg class="bars meter" viewBox="0 0 60 8" width="60" height="8" aria-hidden="true">
      <rect class="rail" width="60" height="8" />
      <rect class={share >= 1 && of != null ? "s-failed" : "s-running"} width={share * 60} height="8" />
    </svg>
  );
}

export function Pools() {
  const pools = usePages("pools", (wanted, signal) => call("GET /api/v1/pools", { query: wanted as never }, signal), {
    every: 5000,
  });
  const rates = usePages("rates", (wanted, signal) => call("GET /api/v1/rate-limits", { query: wanted as never }, signal), {
    every: 5000,
  });
  return (
    <>
      <section>
        <div class="line">
          <h2>Pools</h2>
          <ActionButton name="New pool" dialog={(close) => <PoolDialog close={close} done={pools.reload} />} />
        </div>
        <Loaded of={pools} what="pools">
          {(found) =>
            found.length ? (
              <Table
                label="Pools"
                rows={found}
                id={(pool) => pool.name}
                more={pools.more}
                columns={[
                  { name: "Pool", kind: "wide", show: (pool) => pool.name },
                  {
                    name: "Used",
                    show: (pool: PoolView) => (
                      <span class="line">
                        <Bar used={pool.used} of={pool.slots} /> {pool.used} of {pool.slots ?? "any number"}
                      </span>
                    ),
                  },
                  {
                    name: "Waiting",
                    kind: "right",
                    show: (pool) => (pool.waiting ? <strong>{pool.waiting}</strong> : "none"),
                  },
                  { name: "Set", minor: true, show: (pool) => <Ago at={pool.changed_at} /> },
                  {
                    name: "Actions",
                    show: (pool) => (
                      <span class="actions">
                        <ActionButton
                          name={pool.slots == null ? "Limit" : "Change"}
                          dialog={(close) => <PoolDialog pool={pool} close={close} done={pools.reload} />}
                        />
                        {pool.slots != null && (
                          <ActionButton
                            name="Delete"
                            danger
                            dialog={(close) => <DeletePool pool={pool} close={close} done={pools.reload} />}
                          />
                        )}
                      </span>
                    ),
                  },
                ]}
              />
            ) : (
              <Empty>
                <p>No task names a pool.</p>
                <code>{command("pools", "set", "warehouse", 4)}</code>
              </Empty>
            )
          }
        </Loaded>
      </section>
      <section>
        <h2>Rate limits</h2>
        <Loaded of={rates} what="rate limits">
          {(found) =>
            found.length ? (
              <Table
                label="Rate limits"
                rows={found}
                id={(limit) => limit.name}
                more={rates.more}
                columns={[
                  { name: "Limit", kind: "wide", show: (limit: RateLimitView) => limit.name },
                  { name: "Rate", show: (limit) => limit.rate },
                  { name: "May start now", kind: "right", show: (limit) => limit.available },
                  { name: "Waiting", kind: "right", show: (limit) => limit.waiting || "none" },
                  { name: "Next at", minor: true, show: (limit) => (limit.next_at ? <Ago at={limit.next_at} /> : "now") },
                ]}
              />
            ) : (
              <p class="faint">No task declares one.</p>
            )
          }
        </Loaded>
      </section>
    </>
  );
}

function PoolDialog({ pool, close, done }: Opened & { pool?: PoolView }) {
  const [name, setName] = useState(pool?.name ?? "");
  const [slots, setSlots] = useState(String(pool?.slots ?? 4));
  const count = Number(slots);
  const path = { pool: name };
  return (
    <ActionDialog
      title={pool ? `Set pool ${pool.name}` : "New pool"}
      verb="Set"
      role="operator"
      close={close}
      ready={Boolean(name.trim()) && slots !== "" && Number.isInteger(count) && count >= 0}
      cli={command("pools", "set", name || "NAME", count)}
      request={{ method: "PUT", path: urlOf("PUT /api/v1/pools/{pool}", { path }), body: { slots: count } }}
      act={async () => {
        await call("PUT /api/v1/pools/{pool}", {
          path,
          body: { slots: count },
          ...(pool && { revision: pool.revision }),
        });
        done();
        return `Pool ${name} has ${count} slots.`;
      }}
    >
      {!pool && (
        <label class="field">
          Name, or tag:NAME for the tasks of all DAGs with a tag, runs:tag:NAME for their active runs
          <input value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
      )}
      <label class="field">
        Slots
        <input type="number" min="0" value={slots} onInput={(event) => setSlots(event.currentTarget.value)} />
      </label>
      {pool && (
        <p>
          {pool.used} run and {pool.waiting} wait.{" "}
          {count < pool.used
            ? "Those that run go on; none starts before fewer than that run."
            : count > (pool.slots ?? count) && pool.waiting
              ? `${Math.min(pool.waiting, count - pool.used)} of those that wait start.`
              : ""}
          {count === 0 && " With 0 slots none starts."}
        </p>
      )}
    </ActionDialog>
  );
}

function DeletePool({ pool, close, done }: Opened & { pool: PoolView }) {
  const path = { pool: pool.name };
  return (
    <Deletion
      title={`Delete pool ${pool.name}`}
      role="operator"
      close={close}
      done={done}
      cli={command("pools", "delete", pool.name)}
      path={urlOf("DELETE /api/v1/pools/{pool}", { path })}
      act={() => call("DELETE /api/v1/pools/{pool}", { path, revision: pool.revision })}
      said={`Pool ${pool.name} has no limit any more.`}
    >
      <p>
        Tasks that name it are then unlimited
        {pool.waiting ? `: the ${pool.waiting} that wait start at once` : ""}.
      </p>
    </Deletion>
  );
}

export function Connections() {
  const reason = lacking("operator");
  return reason ? <p class="reason">{reason}</p> : <ConnectionList />;
}

function ConnectionList() {
  const found = usePages("connections", (wanted, signal) =>
    call("GET /api/v1/connections", { query: wanted as never }, signal),
  );
  const types = useResource("connection types", (signal) => call("GET /api/v1/connection-types", {}, signal));
  const names = (types.value ?? []).map((type) => type.name);
  return (
    <>
      <div class="line">
        <h2>Connections</h2>
        <ActionButton
          name="New connection"
          dialog={(close) => <ConnectionDialog types={names} close={close} done={found.reload} />}
        />
      </div>
      <Loaded of={found} what="connections">
        {(connections) =>
          connections.length ? (
            <Table
              label="Connections"
              rows={connections}
              id={(each) => each.name}
              more={found.more}
              columns={[
                { name: "Name", show: (each) => <strong>{each.name}</strong> },
                { name: "Kind", show: (each) => each.kind },
                { name: "URI", kind: "wide", show: (each) => (each.uri ? <code>{each.uri}</code> : "") },
                {
                  name: "Secrets",
                  show: (each) => Object.keys(each.secrets).map((field) => <span class="chip" key={field}>{field} ***</span>),
                },
                { name: "DAGs", minor: true, show: (each) => each.dags?.join(", ") || "all" },
                { name: "From", minor: true, show: (each) => <From of={each} /> },
                {
                  name: "Actions",
                  show: (each) => (
                    <span class="actions">
                      <ActionButton name="Test" dialog={(close) => <TestConnection of={each} close={close} />} />
                      <Changes
                        of={each}
                        edit={(close) => <ConnectionDialog of={each} types={names} close={close} done={found.reload} />}
                        remove={(close) => <DeleteConnection of={each} close={close} done={found.reload} />}
                      />
                    </span>
                  ),
                },
              ]}
            />
          ) : (
            <Empty>
              <p>There is no connection yet.</p>
              <code>{command("connections", "set", "warehouse", "--uri", "postgres://ann@db/sales", "--secret", "password")}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

function TestConnection({ of, close }: { of: ConnectionView; close: () => void }) {
  const [outcome, setOutcome] = useState("");
  const path = { name: of.name };
  return (
    <ActionDialog
      title={`Test ${of.name}`}
      verb="Test"
      role="operator"
      close={close}
      cli={command("connections", "test", of.name)}
      request={{ method: "POST", path: urlOf("POST /api/v1/connections/{name}/test", { path }), body: {} }}
      act={async () => {
        const found = await call("POST /api/v1/connections/{name}/test", { path, body: {} as never });
        setOutcome(found.outcome);
        if (!found.ok) throw new ApiError(0, { detail: found.outcome });
        return `${of.name} works: ${found.outcome}`;
      }}
    >
      <p>The daemon tries it by the check of its type, in a process of its own. {outcome}</p>
    </ActionDialog>
  );
}

function ConnectionDialog({ of, types, close, done }: Opened & { of?: ConnectionView; types: readonly string[] }) {
  const [name, setName] = useState(of?.name ?? "");
  const [type, setType] = useState(of?.kind ?? "");
  const [uri, setUri] = useState(of?.uri ?? "");
  const [extra, setExtra] = useState(JSON.stringify(of?.extra ?? {}, null, 2));
  const [secrets, setSecrets] = useState<readonly (readonly [string, string])[]>(
    Object.keys(of?.secrets ?? {}).map((field) => [field, MASK] as const),
  );
  const [dags, setDags] = useState(of?.dags?.join(", ") ?? "");
  const given = secrets.filter(([field]) => field.trim());
  const fault = faultOf(extra);
  const body = {
    ...(type && (types.includes(type) && !of ? { type } : { kind: type })),
    uri: uri || null,
    extra: fault ? {} : (JSON.parse(extra) as Record<string, unknown>),
    secrets: Object.fromEntries(given),
    dags: dags.split(",").map((each) => each.trim()).filter(Boolean),
  };
  // What is shown and copied has no secret in it.
  const shown = { ...body, secrets: Object.fromEntries(given.map(([field]) => [field, MASK])) };
  const path = { name };
  const changed = given.filter(([, value]) => value !== MASK);
  const forgotten = Object.keys(of?.secrets ?? {}).filter((field) => !given.some(([each]) => each === field));
  return (
    <ActionDialog
      title={of ? `Edit ${of.name}` : "New connection"}
      verb="Set"
      role="admin"
      close={close}
      ready={Boolean(name.trim()) && !fault}
      cli={command(
        ...["connections", "set", name || "NAME", uri && "--uri", uri, type && "--kind", type],
        ...(extra.trim() !== "{}" ? ["--extra", extra] : []),
        ...changed.flatMap(([field]) => ["--secret", field]),
        ...forgotten.flatMap((field) => ["--forget", field]),
        ...body.dags.flatMap((each) => ["--dags", each]),
      )}
      request={{ method: "PUT", path: urlOf("PUT /api/v1/connections/{name}", { path }), body: shown }}
      act={async () => {
        await call("PUT /api/v1/connections/{name}", {
          path,
          body: body as never,
          revision: of ? of.revision : "absent",
        });
        done();
        return `Connection ${name} is set.`;
      }}
    >
      {!of && (
        <label class="field">
          Name: letters, digits, _ and -
          <input value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
      )}
      <label class="field">
        Type, or kind
        <input list="connection-types" value={type} onInput={(event) => setType(event.currentTarget.value)} />
        <datalist id="connection-types">
          {types.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      </label>
      <label class="field">
        URI, without a password
        <input value={uri} placeholder="postgres://ann@db.example.com/sales" onInput={(event) => setUri(event.currentTarget.value)} />
      </label>
      <fieldset class="field">
        <legend>Secrets: stored encrypted, never shown again</legend>
        {secrets.map(([field, value], at) => (
          <span class="line" key={at}>
            <input
              aria-label={`Field of secret ${at + 1}`}
              placeholder="password"
              value={field}
              onInput={(event) => setSecrets(secrets.with(at, [event.currentTarget.value, value]))}
            />
            <input
              type="password"
              autocomplete="new-password"
              aria-label={`Value of secret ${at + 1}`}
              placeholder={value === MASK ? "stays as it is" : ""}
              value={value === MASK ? "" : value}
              onInput={(event) => setSecrets(secrets.with(at, [field, event.currentTarget.value || MASK]))}
            />
            <button type="button" aria-label={`Remove secret ${field}`} onClick={() => setSecrets(secrets.toSpliced(at, 1))}>
              ✕
            </button>
          </span>
        ))}
        <button type="button" onClick={() => setSecrets([...secrets, ["", ""]])}>
          Add a secret
        </button>
      </fieldset>
      <JsonField label="Further fields, none of them secret" text={extra} set={setExtra} rows={3} />
      <label class="field">
        DAGs that may use it, separated by commas; all if empty
        <input value={dags} onInput={(event) => setDags(event.currentTarget.value)} />
      </label>
      {of && <p>Tasks that start from now on get it; those that run keep what they have read.</p>}
    </ActionDialog>
  );
}

function DeleteConnection({ of, close, done }: Opened & { of: ConnectionView }) {
  const path = { name: of.name };
  return (
    <Deletion
      title={`Delete connection ${of.name}`}
      role="admin"
      close={close}
      done={done}
      cli={command("connections", "delete", of.name)}
      path={urlOf("DELETE /api/v1/connections/{name}", { path })}
      act={() => call("DELETE /api/v1/connections/{name}", { path, revision: of.revision })}
      said={`Connection ${of.name} is deleted.`}
    >
      <p>Its secrets are gone then. Tasks that ask for it fail, and say so.</p>
    </Deletion>
  );
}

export function Variables() {
  const reason = lacking("operator");
  return reason ? <p class="reason">{reason}</p> : <VariableList />;
}

function VariableList() {
  const found = usePages("variables", (wanted, signal) =>
    call("GET /api/v1/variables", { query: wanted as never }, signal),
  );
  return (
    <>
      <div class="line">
        <h2>Variables</h2>
        <ActionButton name="New variable" dialog={(close) => <VariableDialog close={close} done={found.reload} />} />
      </div>
      <Loaded of={found} what="variables">
        {(variables) =>
          variables.length ? (
            <Table
              label="Variables"
              rows={variables}
              id={(each) => each.name}
              more={found.more}
              columns={[
                {
                  name: "Name",
                  show: (each: VariableView) => (
                    <>
                      <strong>{each.name}</strong>
                      {each.description && <div class="faint">{each.description}</div>}
                    </>
                  ),
                },
                {
                  name: "Value",
                  kind: "wide",
                  show: (each) => (each.secret ? <span class="chip">secret ***</span> : <code class="clip">{JSON.stringify(each.value)}</code>),
                },
                { name: "From", minor: true, show: (each) => <From of={each} /> },
                {
                  name: "Actions",
                  show: (each) => (
                    <span class="actions">
                      <Changes
                        of={each}
                        edit={(close) => <VariableDialog of={each} close={close} done={found.reload} />}
                        remove={(close) => <DeleteVariable of={each} close={close} done={found.reload} />}
                      />
                    </span>
                  ),
                },
              ]}
            />
          ) : (
            <Empty>
              <p>There is no variable yet.</p>
              <code>{command("variables", "set", "region", '"eu"')}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

function VariableDialog({ of, close, done }: Opened & { of?: VariableView }) {
  const [name, setName] = useState(of?.name ?? "");
  const [text, setText] = useState(!of || of.secret ? "" : JSON.stringify(of.value, null, 2));
  const [hidden, setHidden] = useState(of?.secret ?? false);
  const [description, setDescription] = useState(of?.description ?? "");
  const kept = Boolean(of?.secret) && text === "";
  // A secret is typed as it is; other values are JSON.
  const fault = hidden || kept ? undefined : faultOf(text || "null");
  const value: unknown = kept ? MASK : hidden ? text : fault ? null : JSON.parse(text || "null");
  const body = { value, secret: hidden, description: description || null };
  const path = { name };
  return (
    <ActionDialog
      title={of ? `Edit ${of.name}` : "New variable"}
      verb="Set"
      role="admin"
      close={close}
      ready={Boolean(name.trim()) && !fault && (text !== "" || kept)}
      cli={command(
        ...["variables", "set", name || "NAME", !hidden && (text || "VALUE")],
        ...(hidden ? ["--secret"] : []),
        ...(description ? ["--description", description] : []),
      )}
      request={{
        method: "PUT",
        path: urlOf("PUT /api/v1/variables/{name}", { path }),
        body: hidden ? { ...body, value: MASK } : body,
      }}
      act={async () => {
        await call("PUT /api/v1/variables/{name}", { path, body: body as never, revision: of ? of.revision : "absent" });
        done();
        return `Variable ${name} is set.`;
      }}
    >
      {!of && (
        <label class="field">
          Name
          <input value={name} onInput={(event) => setName(event.currentTarget.value)} />
        </label>
      )}
      <label class="line">
        <input type="checkbox" checked={hidden} onChange={(event) => setHidden(event.currentTarget.checked)} />
        Secret: stored encrypted, never shown again
      </label>
      {hidden ? (
        <label class="field">
          Value
          <input
            type="password"
            autocomplete="new-password"
            placeholder={of?.secret ? "stays as it is" : ""}
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </label>
      ) : (
        <JsonField label="Value, as JSON" text={text} set={setText} rows={4} />
      )}
      <label class="field">
        Description
        <input value={description} onInput={(event) => setDescription(event.currentTarget.value)} />
      </label>
      {of && <p>DAG files that read it when they are imported are imported again.</p>}
    </ActionDialog>
  );
}

function DeleteVariable({ of, close, done }: Opened & { of: VariableView }) {
  const path = { name: of.name };
  return (
    <Deletion
      title={`Delete variable ${of.name}`}
      role="admin"
      close={close}
      done={done}
      cli={command("variables", "delete", of.name)}
      path={urlOf("DELETE /api/v1/variables/{name}", { path })}
      act={() => call("DELETE /api/v1/variables/{name}", { path, revision: of.revision })}
      said={`Variable ${of.name} is deleted.`}
    >
      <p>Tasks and DAG files that need it fail, and name it.</p>
    </Deletion>
  );
}
