/** Fields of forms whose values stand in the address. */
import { useId } from "preact/hooks";

/** A moment, typed and shown in UTC; its value is in ISO 8601, empty for none. */
export function Moment(props: { label: string; value: string; set: (value: string) => void; hint?: string }) {
  const id = useId();
  return (
    <div class="field">
      <label htmlFor={id}>{props.label} (UTC)</label>
      <input
        id={id}
        type="datetime-local"
        step={60}
        value={props.value.slice(0, 16)}
        onChange={(event) => {
          const typed = event.currentTarget.value;
          props.set(typed && `${typed.length === 16 ? `${typed}:00` : typed.slice(0, 19)}Z`);
        }}
      />
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
    value: props.value,
    placeholder: props.placeholder,
    "aria-describedby": props.hint ? `${id}-hint` : undefined,
    onChange: (event: { currentTarget: { value: string } }) => props.set(event.currentTarget.value.trim()),
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
