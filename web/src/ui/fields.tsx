/** Fields of forms whose values stand in the address. */
import { useId, useState } from "preact/hooks";

interface Typing {
  currentTarget: { value: string };
}

/** What a field shows that counts when it is complete: what is typed stays while the view is drawn anew. */
function useTyped(value: string, set: (value: string) => void) {
  const [typed, setTyped] = useState<string>();
  const forget = () => setTyped(undefined);
  return {
    value: typed ?? value,
    onInput: (event: Typing) => setTyped(event.currentTarget.value),
    onChange: (event: Typing) => {
      forget();
      set(event.currentTarget.value);
    },
    onBlur: forget,
  };
}

/** A text of a filter. */
export function Typed(props: {
  label: string;
  value: string | undefined;
  set: (value: string) => void;
  type?: "text" | "number";
  min?: number;
  max?: number;
  placeholder?: string;
  size?: number;
  /** Beside its label, not below it. */
  line?: boolean;
}) {
  const { label, value, set, line, type, ...rest } = props;
  const typed = useTyped(value ?? "", (text) => set(text.trim()));
  return (
    <label class={line ? "line" : ""}>
      {label}
      <input {...rest} {...typed} type={(type ?? "text") as "text"} />
    </label>
  );
}

/** A moment, typed and shown in UTC; its value is in ISO 8601, empty for none. */
export function Moment(props: { label: string; value: string; set: (value: string) => void; hint?: string }) {
  const id = useId();
  const typed = useTyped(props.value.slice(0, 16), (text) =>
    props.set(text && `${text.length === 16 ? `${text}:00` : text.slice(0, 19)}Z`),
  );
  return (
    <div class="field">
      <label htmlFor={id}>{props.label} (UTC)</label>
      <input id={id} type="datetime-local" step={60} {...typed} />
      {props.hint && <p class="hint">{props.hint}</p>}
    </div>
  );
}

/** A text that counts when it is complete: at Enter, or when the field is left. */
export function Text(props: {
  label: string;
  value: string;
  set: (value: string) => void;
  options?: readonly string[];
  hint?: string;
  placeholder?: string;
  type?: "text" | "number";
  rows?: number;
}) {
  const id = useId();
  const shared = {
    id,
    ...useTyped(props.value, (text) => props.set(text.trim())),
    placeholder: props.placeholder,
    "aria-describedby": props.hint ? `${id}-hint` : undefined,
  };
  return (
    <div class="field">
      <label htmlFor={id}>{props.label}</label>
      {props.rows ? (
        <textarea {...shared} class="code" rows={props.rows} spellcheck={false} />
      ) : (
        <input
          {...shared}
          type={(props.type ?? "text") as "text"}
          min={props.type === "number" ? 1 : undefined}
          list={props.options ? `${id}-options` : undefined}
        />
      )}
      {props.options && (
        <datalist id={`${id}-options`}>
          {props.options.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      )}
      {props.hint && (
        <p class="hint" id={`${id}-hint`}>
          {props.hint}
        </p>
      )}
    </div>
  );
}

export function Choice<T extends string>(props: {
  label: string;
  value: T;
  options: readonly (readonly [T, string])[];
  set: (value: T) => void;
}) {
  return (
    <fieldset class="choice">
      <legend>{props.label}</legend>
      {props.options.map(([value, text]) => (
        <label key={value} class="line">
          <input type="radio" name={props.label} checked={props.value === value} onChange={() => props.set(value)} />
          {text}
        </label>
      ))}
    </fieldset>
  );
}
