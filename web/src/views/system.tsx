/** The system: daemons, workers, lags, limits, what comes in and goes out, who may do what. */
import type { AlertView, AuditView, Info, Readiness, SubscriptionView, SystemView, TokenView, WebhookView, WorkerView } from "#routes";
import type { ComponentChild } from "preact";
import { ApiError, call, urlOf } from "../core/api";
import { lazy } from "../core/lazy";
import { lacking } from "../core/me";
import { grouped } from "../core/numbers";
import { usePages, useResource } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { bytes, duration } from "../core/time";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { Typed } from "../ui/fields";
import { Ago, Empty, Facts, Heading, Loaded, Shape, State, Table, Tabs, type Column } from "../ui/parts";

const Pools = lazy(() => import("./settings").then((each) => each.Pools));
const Connections = lazy(() => import("./settings").then((each) => each.Connections));
const Variables = lazy(() => import("./settings").then((each) => each.Variables));

const PARTS: Record<string, { name: string; show: () => ComponentChild }> = {
  overview: { name: "Overview", show: () => <Overview /> },
  pools: { name: "Pools", show: () => <Pools /> },
  connections: { name: "Connections", show: () => <Connections /> },
  variables: { name: "Variables", show: () => <Variables /> },
  intake: { name: "In and out", show: () => <InAndOut /> },
  alerts: { name: "Alerts", show: () => <Alerts /> },
  access: { name: "Access", show: () => <Access /> },
};

export function System({ part = "overview" }: { part?: string }) {
  const shown = PARTS[part] ?? PARTS.overview!;
  // Alerts are of DAGs and datasets, webhooks of datasets; hosts, pools and secrets are of nobody's alone.
  const reason = part === "alerts" ? undefined : lacking("viewer", { dataset: part === "intake" });
  return (
    <>
      <Heading title={part === "overview" ? "System" : `System: ${shown.name}`} />
      <Tabs
        label="Parts of the system"
        now={part}
        tabs={Object.entries(PARTS).map(([id, each]) => ({
          id,
          name: each.name,
          href: id === "overview" ? to("system") : to("system", id),
        }))}
      />
      {reason ? (
        <Empty>
          <p>This is about the whole system, not about some DAGs. {reason}</p>
          <a href={to("system", "alerts")}>Go to the alerts</a>
        </Empty>
      ) : (
        shown.show()
      )}
    </>
  );
}

interface Seen {
  info: Info;
  ready: Readiness;
  system: SystemView;
}

function Overview() {
  const found = useResource(
    "system",
    async (signal): Promise<Seen> => {
      const [info, ready, system] = await Promise.all([
        call("GET /api/v1/info", {}, signal),
        // A daemon that is not ready says why, with the status 503.
        fetch("/readyz", { signal }).then((answer) => answer.json() as Promise<Readiness>),
        call("GET /api/v1/system", {}, signal),
      ]);
      return { info, ready, system };
    },
    { every: 5000 },
  );
  return (
    <Loaded of={found} what="the system">
      {({ info, ready, system }) => (
        <>
          <Daemon info={info} ready={ready} />
          <Workers workers={info.workers} />
          <Lags ready={ready} system={system} />
          <Others system={system} />
          <Storage system={system} />
        </>
      )}
    </Loaded>
  );
}

function Daemon({ info, ready }: { info: Info; ready: Readiness }) {
  const failing = Object.entries(ready.checks).filter(([, holds]) => !holds);
  const stores = Object.entries(ready.stores ?? {}).filter(([, works]) => !works);
  return (
    <section aria-label="This daemon">
      <div class="line">
        <h2>This daemon</h2>
        <span class={`state ${ready.ready ? "s-success" : "s-failed"}`}>
          <Shape name={ready.ready ? "success" : "failed"} /> {ready.ready ? "ready" : "not ready"}
        </span>
        {failing.map(([name]) => (
          <span key={name} class="state s-failed">
            <Shape name="failed" /> {name}
          </span>
        ))}
        {stores.map(([name]) => (
          <span key={name} class="state s-failed">
            <Shape name="failed" /> object store {name}
          </span>
        ))}
      </div>
      <Facts
        of={[
          ["Version", info.version],
          ["Process", info.pid],
          ["Started", <Ago at={info.started_at} />],
          ["Protocol", info.protocol],
          ["Schema", info.schema],
          ["Events are", ready.intake.accepting ? "accepted" : `refused: ${ready.intake.reason}`],
          ["Left to newer daemons", ready.left_to_newer || null],
          ["Free disk", ready.intake.free_bytes != null ? bytes(ready.intake.free_bytes) : null],
        ]}
      />
    </section>
  );
}

const SILENT = 30_000; // without a heartbeat for so long a worker is likely gone

const WORKERS: readonly Column<WorkerView>[] = [
  {
    name: "State",
    show: (worker) =>
      Date.now() - Date.parse(worker.seen_at) > SILENT ? (
        <span class="state s-failed">
          <Shape name="failed" /> silent
        </span>
      ) : (
        <span class="state s-success">
          <Shape name="success" /> alive
        </span>
      ),
  },
  {
    name: "Worker",
    kind: "wide",
    show: (worker) => (
      <>
        {worker.worker}
        <div class="faint">
          {worker.host}, process {worker.pid}
        </div>
      </>
    ),
  },
  { name: "Queues", show: (worker) => worker.queues?.join(", ") || "none" },
  {
    name: "Slots busy",
    kind: "right",
    show: (worker) => `${worker.busy} of ${worker.slots}`,
  },
  {
    name: "Free",
    minor: true,
    show: (worker) =>
      [
        `${worker.free_sync} sync, ${worker.free_async} async`,
        worker.free_memory != null && bytes(worker.free_memory),
        worker.free_cpu != null && `${worker.free_cpu} CPU`,
      ]
        .filter(Boolean)
        .join("; "),
  },
  { name: "Version", minor: true, show: (worker) => worker.version || "before 0.1" },
  { name: "Started", minor: true, show: (worker) => <Ago at={worker.started_at} /> },
  { name: "Last seen", show: (worker) => <Ago at={worker.seen_at} /> },
];

function Workers({ workers }: { workers: readonly WorkerView[] }) {
  return (
    <section aria-label="Workers">
      <h2>Workers</h2>
      {workers.length ? (
        <Table label="Workers" rows={workers} columns={WORKERS} id={(worker) => worker.worker} />
      ) : (
        <Empty>
          <p>No worker runs: no task starts.</p>
          <code>{command("daemon", "--roles", "worker")}</code>
        </Empty>
      )}
    </section>
  );
}

const LATE = 5; // seconds

function Lags({ ready, system }: { ready: Readiness; system: SystemView }) {
  const rows = [
    ...Object.entries(ready.oldest_seconds ?? {}).map(([name, seconds]) => ({
      name: `${name} of this daemon`,
      count: name === "messages" ? (ready.intake.pending ?? 0) : undefined,
      seconds,
    })),
    ...system.consumers.map((each) => ({
      name: `${each.stream} · ${each.consumer}`,
      count: each.waiting + each.unacknowledged,
      seconds: each.oldest_seconds,
    })),
  ];
  return (
    <section aria-label="Lags">
      <h2>Lags</h2>
      {system.trouble && <p class="reason">{system.trouble}</p>}
      <Table
        label="Lags"
        rows={rows.sort((one, other) => other.seconds - one.seconds)}
        id={(row) => row.name}
        columns={[
          { name: "Of", kind: "wide", show: (row) => row.name },
          { name: "Under way", kind: "right", show: (row) => row.count ?? "" },
          {
            name: "The oldest waits for",
            kind: "right",
            show: (row) =>
              row.seconds > LATE ? (
                <span class="state s-failed">
                  <Shape name="failed" /> {duration(row.seconds * 1000)}
                </span>
              ) : row.seconds > 0 ? (
                duration(row.seconds * 1000)
              ) : (
                <span class="faint">none waits</span>
              ),
          },
        ]}
      />
    </section>
  );
}

function Others({ system }: { system: SystemView }) {
  return (
    <>
      <section aria-label="Triggerers">
        <h2>Triggerers</h2>
        {system.triggerers.length ? (
          <Table
            label="Triggerers"
            rows={system.triggerers}
            id={(each) => each.name}
            columns={[
              { name: "Triggerer", kind: "wide", show: (each) => `${each.name} on ${each.host}, process ${each.pid}` },
              { name: "Runs", kind: "right", show: (each) => `${each.running} of ${each.capacity}` },
              { name: "Last seen", show: (each) => <Ago at={each.seen_at} /> },
            ]}
          />
        ) : (
          <p class="faint">None runs: waits for triggers and watches do not go on.</p>
        )}
      </section>
      {system.leases.length > 0 && (
        <section aria-label="Leases">
          <h2>What one daemon does for all</h2>
          <Table
            label="Leases"
            rows={system.leases}
            id={(each) => each.name}
            columns={[
              { name: "What", show: (each) => each.name },
              { name: "Who", kind: "wide", show: (each) => each.owner },
              { name: "Last seen", show: (each) => <Ago at={each.seen_at} /> },
            ]}
          />
        </section>
      )}
    </>
  );
}

function Storage({ system }: { system: SystemView }) {
  const { database } = system;
  const oldest = (series: string) => system.slices.find((slice) => slice.series === series)?.started_at;
  return (
    <section aria-label="Storage">
      <h2>Storage and retention</h2>
      <Facts
        of={[
          ["Database", `${database.name}, ${bytes(database.bytes)}`],
          ["Postgres", database.version],
          ["Runs since", <Ago at={oldest("run")} />],
          ["Events since", <Ago at={oldest("event")} />],
          ...Object.entries(system.retention)
            .filter(([name]) => name.endsWith("_days"))
            .map(
              ([name, value]) =>
                [`Kept: ${name.replace("_days", "").replaceAll("_", " ")}`, value ? `${value} days` : "for ever"] as const,
            ),
        ]}
      />
      <details>
        <summary>The largest tables</summary>
        <Table
          label="The largest tables"
          rows={database.tables}
          id={(each) => each.name}
          uncounted
          columns={[
            { name: "Table", kind: "wide", show: (each) => <code>{each.name}</code> },
            { name: "Size", kind: "right", show: (each) => bytes(each.bytes) },
            { name: "Rows, about", kind: "right", show: (each) => grouped(each.rows) },
          ]}
        />
      </details>
    </section>
  );
}

const HOOKS: readonly Column<WebhookView>[] = [
  {
    name: "Webhook",
    kind: "wide",
    show: (hook) => (
      <>
        <code>{hook.path}</code>
        <div class="faint">
          {hook.verifier}
          {hook.file && `, ${hook.file}`}
        </div>
        {(hook.trouble || hook.last_refusal) && (
          <div class={hook.trouble ? "state s-failed" : "faint"}>
            {hook.trouble ?? <>last refused <Ago at={hook.last_refused_at} />: {hook.last_refusal}</>}
          </div>
        )}
      </>
    ),
  },
  { name: "Dataset", show: (hook) => <a href={to("datasets", hook.dataset)}>{hook.dataset}</a> },
  { name: "Received", kind: "right", show: (hook) => hook.received },
  { name: "Accepted", kind: "right", show: (hook) => hook.accepted },
  { name: "Refused", kind: "right", show: (hook) => hook.refused || "none" },
  { name: "Dead", kind: "right", minor: true, show: (hook) => hook.dead || "none" },
  { name: "Last", minor: true, show: (hook) => <Ago at={hook.last_received_at} /> },
];

function InAndOut() {
  const hooks = usePages("hooks", (wanted, signal) => call("GET /api/v1/hooks", { query: wanted as never }, signal), {
    every: 10_000,
  });
  return (
    <>
      <section aria-label="Webhooks">
        <h2>Webhooks</h2>
        <Loaded of={hooks} what="webhooks">
          {(found) =>
            found.length ? (
              <Table label="Webhooks" rows={found} columns={HOOKS} id={(hook) => hook.name} more={hooks.more} />
            ) : (
              <p class="faint">
                {lacking("viewer") ? "No webhook is of a dataset that you may see." : "No DAG file declares one."}
              </p>
            )
          }
        </Loaded>
      </section>
      <section aria-label="Subscriptions">
        <h2>Subscriptions of others</h2>
        {lacking("operator") ? <p class="reason">{lacking("operator")}</p> : <Subscriptions />}
      </section>
    </>
  );
}

function Subscriptions() {
  const found = usePages(
    "subscriptions",
    (wanted, signal) => call("GET /api/v1/subscriptions", { query: wanted as never }, signal),
    { every: 10_000 },
  );
  const columns: readonly Column<SubscriptionView>[] = [
    {
      name: "State",
      show: (each) =>
        each.state === "active" ? (
          <span class="state s-success">
            <Shape name="success" /> active
          </span>
        ) : (
          <State name={each.state === "gone" ? "dead" : each.state} />
        ),
    },
    {
      name: "Receiver",
      kind: "wide",
      show: (each) => (
        <>
          <code>{each.url}</code>
          {each.description && <div class="faint">{each.description}</div>}
          {(each.reason ?? each.last_error) && <div class="state s-failed">{each.reason ?? each.last_error}</div>}
        </>
      ),
    },
    { name: "Events of", show: (each) => each.dataset ?? "all datasets" },
    { name: "Delivered", kind: "right", show: (each) => each.delivered },
    { name: "Waiting", kind: "right", show: (each) => each.waiting || "none" },
    { name: "Dead", kind: "right", minor: true, show: (each) => each.dead || "none" },
    { name: "Last try", minor: true, show: (each) => <Ago at={each.last_at} /> },
    {
      name: "Actions",
      show: (each) => (
        <span class="actions">
          <Steer of={each} verb={each.state === "paused" ? "Resume" : "Pause"} done={found.reload} />
        </span>
      ),
    },
  ];
  return (
    <Loaded of={found} what="subscriptions">
      {(subscriptions) =>
        subscriptions.length ? (
          <Table label="Subscriptions" rows={subscriptions} columns={columns} id={(each) => each.id} more={found.more} />
        ) : (
          <Empty>
            <p>Nobody has subscribed to events by a URL.</p>
            <code>{command("subscriptions", "create", "URL", "--dataset", "s3://lake/*")}</code>
          </Empty>
        )
      }
    </Loaded>
  );
}

function Steer({ of, verb, done }: { of: SubscriptionView; verb: "Pause" | "Resume"; done: () => void }) {
  const path = { id: of.id };
  const route = "PATCH /api/v1/subscriptions/{id}" as const;
  const body = { paused: verb === "Pause" };
  return (
    <ActionButton
      name={verb}
      disabled={of.state === "gone" && "Its receiver has answered that it is gone."}
      dialog={(close) => (
        <ActionDialog
          title={`${verb} deliveries to ${of.url}`}
          verb={verb}
          role="operator"
          close={close}
          cli={command("subscriptions", verb.toLowerCase(), of.id)}
          request={{ method: "PATCH", path: urlOf(route, { path }), body }}
          act={async () => {
            await call(route, { path, body, revision: of.revision });
            done();
            return `Deliveries to ${of.url} ${verb === "Pause" ? "are paused" : "go on"}.`;
          }}
        >
          <p>
            {verb === "Pause"
              ? "Events from now on wait until it is resumed."
              : `What has waited is delivered first${of.waiting ? `: ${of.waiting} events` : ""}.`}
          </p>
        </ActionDialog>
      )}
    />
  );
}

function Alerts() {
  const chosen = address.value.query.get("state") ?? "open";
  const state = chosen === "all" ? undefined : chosen;
  const found = usePages(
    `alerts ${chosen}`,
    (wanted, signal) => call("GET /api/v1/alerts", { query: { state, ...wanted } as never }, signal),
    { every: 10_000 },
  );
  const columns: readonly Column<AlertView>[] = [
    {
      name: "State",
      show: (alert) => (
        <span class={`state ${alert.state === "ended" ? "s-success" : alert.state === "open" ? "s-failed" : "s-queued"}`}>
          <Shape name={alert.state === "ended" ? "success" : alert.state === "open" ? "failed" : "waiting"} /> {alert.state}
        </span>
      ),
    },
    { name: "Kind", show: (alert) => alert.kind },
    {
      name: "What happened",
      kind: "wide",
      show: (alert) => (
        <>
          {alert.text}
          {alert.ending && <div class="faint">ended: {alert.ending}</div>}
        </>
      ),
    },
    {
      name: "Of",
      show: (alert) =>
        alert.run_id ? (
          <a href={to("runs", alert.run_id)}>a run of {alert.dag_id}</a>
        ) : alert.dag_id ? (
          <a href={to("dags", alert.dag_id)}>{alert.dag_id}</a>
        ) : alert.dataset ? (
          <a href={to("datasets", alert.dataset)}>{alert.dataset}</a>
        ) : (
          alert.subject
        ),
    },
    { name: "Opened", show: (alert) => <Ago at={alert.opened_at} /> },
    { name: "Acknowledged", minor: true, show: (alert) => alert.acknowledged_by ?? "" },
    {
      name: "Actions",
      show: (alert) =>
        alert.state === "open" && (
          <span class="actions">
            <ActionButton
              name="Acknowledge"
              dialog={(close) => (
                <ActionDialog
                  title={`Acknowledge alert ${alert.id}`}
                  verb="Acknowledge"
                  role="operator"
                  about={alert.dag_id ? { dag: alert.dag_id } : { dataset: true }}
                  close={close}
                  cli={command("alerts", "ack", alert.id)}
                  request={{ method: "POST", path: `/api/v1/alerts/${alert.id}/acknowledge` }}
                  act={async () => {
                    await call("POST /api/v1/alerts/{number}/acknowledge", { path: { number: String(alert.id) } });
                    found.reload();
                    return "It is acknowledged.";
                  }}
                >
                  <p>{alert.text}</p>
                  <p>Your name stands beside it; it ends when its cause does.</p>
                </ActionDialog>
              )}
            />
          </span>
        ),
    },
  ];
  return (
    <>
      <div class="chips" role="group" aria-label="States">
        {["open", "acknowledged", "ended", "all"].map((each) => (
          <button
            key={each}
            type="button"
            class="chip"
            aria-pressed={each === chosen}
            onClick={() => setQuery({ state: each === "open" ? undefined : each })}
          >
            {each}
          </button>
        ))}
      </div>
      <Loaded of={found} what="alerts">
        {(alerts) =>
          alerts.length ? (
            <Table label="Alerts" rows={alerts} columns={columns} id={(alert) => String(alert.id)} more={found.more} />
          ) : (
            <Empty>{chosen === "open" ? "No alert is open." : "There is none."}</Empty>
          )
        }
      </Loaded>
    </>
  );
}

const TOKENS: readonly Column<TokenView>[] = [
  {
    name: "State",
    show: (token) => (
      <span class={`state ${token.state === "live" ? "s-success" : "s-cancelled"}`}>
        <Shape name={token.state === "live" ? "success" : "cancelled"} /> {token.state}
      </span>
    ),
  },
  { name: "Name", show: (token) => <strong>{token.name}</strong> },
  { name: "Role", show: (token) => token.role },
  { name: "Datasets", kind: "wide", minor: true, show: (token) => token.datasets.join(", ") || "all" },
  { name: "Made by", minor: true, show: (token) => token.created_by },
  { name: "Used", show: (token) => (token.used_at ? <Ago at={token.used_at} /> : "never") },
  { name: "Expires", minor: true, show: (token) => (token.expires_at ? <Ago at={token.expires_at} /> : "never") },
];

const AUDIT: readonly Column<AuditView>[] = [
  { name: "At", show: (entry) => <Ago at={entry.at} /> },
  { name: "Who", show: (entry) => <strong>{entry.asker}</strong> },
  { name: "Did", show: (entry) => <code>{entry.action}</code> },
  { name: "To", kind: "wide", show: (entry) => entry.object ?? "" },
  {
    name: "Status",
    kind: "right",
    show: (entry) => (
      <span class={entry.status != null && entry.status >= 400 ? "state s-failed" : ""}>
        {entry.status ?? "no answer"}
        {(entry.times ?? 1) > 1 && ` × ${entry.times}`}
      </span>
    ),
  },
  { name: "From", minor: true, show: (entry) => entry.remote ?? "" },
];

function Access() {
  const reason = lacking("admin");
  return reason ? <p class="reason">{reason}</p> : <TokensAndAudit />;
}

function TokensAndAudit() {
  const tokens = usePages("tokens", (wanted, signal) => call("GET /api/v1/tokens", { query: wanted as never }, signal));
  const by = address.value.query.get("by") ?? undefined;
  const audit = usePages(`audit ${by}`, (wanted, signal) =>
    call("GET /api/v1/audit", { query: { by, ...wanted } as never }, signal),
  );
  return (
    <>
      <section aria-label="Tokens">
        <h2>Tokens</h2>
        <Loaded of={tokens} what="tokens">
          {(found) =>
            found.length ? (
              <Table
                label="Tokens"
                rows={found}
                columns={[
                  ...TOKENS,
                  {
                    name: "Actions",
                    show: (token) =>
                      token.state === "live" && (
                        <span class="actions">
                          <RevokeToken of={token} done={tokens.reload} />
                        </span>
                      ),
                  },
                ]}
                id={(token) => token.id}
                more={tokens.more}
              />
            ) : (
              <Empty>
                <p>There is no token: whoever reaches this server from this machine may do everything.</p>
                <code>{command("tokens", "create", "ann", "--role", "operator")}</code>
              </Empty>
            )
          }
        </Loaded>
      </section>
      <section aria-label="Audit">
        <div class="line">
          <h2>Who did what</h2>
          <Typed line label="By" value={by} set={(text) => setQuery({ by: text })} />
        </div>
        <Loaded of={audit} what="the audit log">
          {(found) =>
            found.length ? (
              <Table label="Audit" rows={found} columns={AUDIT} id={(entry) => String(entry.id)} more={audit.more} />
            ) : (
              <Empty>Nobody has changed anything.</Empty>
            )
          }
        </Loaded>
      </section>
    </>
  );
}

function RevokeToken({ of, done }: { of: TokenView; done: () => void }) {
  const path = { id: of.id };
  return (
    <ActionButton
      name="Revoke"
      danger
      dialog={(close) => (
        <ActionDialog
          title={`Revoke ${of.name}`}
          verb="Revoke"
          danger
          role="admin"
          close={close}
          cli={command("tokens", "revoke", of.name)}
          request={{ method: "DELETE", path: urlOf("DELETE /api/v1/tokens/{id}", { path }) }}
          act={async () => {
            try {
              await call("DELETE /api/v1/tokens/{id}", { path });
            } catch (error) {
              if (!(error instanceof ApiError && error.status === 404)) throw error;
            }
            done();
            return `${of.name} is revoked.`;
          }}
        >
          <p>Requests and sessions with it end at once. {of.used_at ? "" : "It was never used."}</p>
        </ActionDialog>
      )}
    />
  );
}
