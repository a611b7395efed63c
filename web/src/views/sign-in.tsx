import { useState } from "preact/hooks";
import { useResource } from "../core/resource";
import { call } from "../core/api";
import { me, trouble } from "../core/me";
import { Copy, Heading, Problem } from "../ui/parts";

export function SignIn() {
  const [token, setToken] = useState("");
  const [error, setError] = useState<Error>();
  const methods = useResource("methods", (signal) => call("GET /api/v1/session", {}, signal));
  const provider = methods.value?.oidc;
  const back = location.pathname + location.search;
  const submit = async (event: Event) => {
    event.preventDefault();
    try {
      me.value = await call("POST /api/v1/session", { body: { token: token.trim() } });
      trouble.value = "";
    } catch (fault) {
      setError(fault as Error);
    }
  };
  return (
    <div class="sign-in panel">
      <Heading title="Sign in" />
      {trouble.value && !error && <Problem error={trouble.value} />}
      {provider && (
        <p>
          <a class="button primary" href={`/auth/sign-in?next=${encodeURIComponent(back)}`}>
            Sign in with {provider}
          </a>
        </p>
      )}
      <p>On the machine of the daemon, this opens the page signed in:</p>
      <p>
        <code>pubsubflow open</code>
        <Copy text="pubsubflow open" what="the command" />
      </p>
      <form onSubmit={submit}>
        <label class="field">
          Or with a token
          <input
            type="password"
            autocomplete="current-password"
            required
            value={token}
            onInput={(event) => setToken(event.currentTarget.value)}
          />
        </label>
        {error && <Problem error={error} />}
        <button type="submit" class="primary" disabled={!token}>
          Sign in
        </button>
      </form>
      <p class="hint">
        The browser keeps a session that no script can read, not the token. An admin makes tokens with{" "}
        <code>pubsubflow tokens create</code>.
      </p>
    </div>
  );
}
