import type { SessionView } from "#routes";
import { call } from "../core/api";
import { me, signOut } from "../core/me";
import { usePages } from "../core/resource";
import { ActionButton, ActionDialog, command } from "../ui/dialog";
import { Ago, Empty, Facts, Heading, Loaded, Table, type Column } from "../ui/parts";

/** Who is signed in here, and which other browsers are. */
export function Sessions() {
  const own = me.value;
  const sessions = usePages(
    "sessions",
    (wanted, signal) => call("GET /api/v1/sessions", { query: { ...wanted } }, signal),
    { every: 15_000 },
  );
  return (
    <>
      <Heading title="Account">
        <div class="actions">
          {own?.via === "session" && (
            <button type="button" onClick={signOut}>
              Sign out
            </button>
          )}
        </div>
      </Heading>
      <Facts
        of={[
          ["Name in the audit log", own?.name],
          ["Role", own?.role],
        ["On some", own?.grants?.join(", ")],
          ["Signed in", own?.via === "session" ? "yes" : "no: this server needs no token on its own machine"],
          ["Until", own?.expires_at && <Ago at={own.expires_at} />],
          ["Server", own && `pubsubflow ${own.version}`],
        ]}
      />
      <h2>{own?.role === "admin" ? "Browsers that have signed in" : "Your browsers"}</h2>
      <Loaded of={sessions} what="sessions">
        {(found) =>
          found.length ? (
            <Table
              label="Sessions"
              rows={found}
              columns={columns(sessions.reload)}
              id={(each) => each.id}
              more={sessions.more}
            />
          ) : (
            <Empty>
              <p>No browser has signed in.</p>
              <code>{command("open")}</code>
            </Empty>
          )
        }
      </Loaded>
    </>
  );
}

const columns = (reload: () => void): readonly Column<SessionView>[] => [
  { name: "Who", show: (each) => (each.id === me.value?.session ? `${each.name} (here)` : each.name) },
  { name: "Browser", kind: "wide", show: (each) => each.agent ?? "" },
  { name: "From", show: (each) => each.remote ?? "", minor: true },
  { name: "Used", show: (each) => <Ago at={each.used_at} /> },
  { name: "Ends", show: (each) => <Ago at={each.expires_at} /> },
  {
    name: "Actions",
    show: (each) =>
      each.id !== me.value?.session && (
        <ActionButton
          name="Sign out"
          danger
          dialog={(close) => (
            <ActionDialog
              title={`Sign ${each.name} out`}
              verb="Sign out"
              danger
              role="viewer"
              close={close}
              cli={command("sessions", "revoke", each.id)}
              request={{ method: "DELETE", path: `/api/v1/sessions/${each.id}` }}
              act={async () => {
                await call("DELETE /api/v1/sessions/{id}", { path: { id: each.id } });
                reload();
                return `${each.name} is signed out there.`;
              }}
            >
              <p>{each.agent}</p>
            </ActionDialog>
          )}
        />
      ),
  },
];
