-- Statements are separated by an empty line; tokens/triggers.py runs them. The ledger is append-only. A refusal is an
-- integrity_constraint_violation, so Django raises IntegrityError for it, as on SQLite.
CREATE OR REPLACE FUNCTION tokens_ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % refused', TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE OR REPLACE TRIGGER tokens_transaction_no_change BEFORE UPDATE OR DELETE ON tokens_transaction
FOR EACH ROW EXECUTE FUNCTION tokens_ledger_is_append_only();

CREATE OR REPLACE TRIGGER tokens_transaction_no_truncate BEFORE TRUNCATE ON tokens_transaction
FOR EACH STATEMENT EXECUTE FUNCTION tokens_ledger_is_append_only();

-- The charge is looked up by its id alone: with more conditions, a table without statistics gets a slow plan.
CREATE OR REPLACE FUNCTION tokens_refund_fits() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    charge tokens_transaction;
BEGIN
    SELECT * INTO charge FROM tokens_transaction WHERE id = NEW.reverses_id;
    IF (charge.kind = 'CHARGE' AND charge.account_id = NEW.account_id AND NEW.amount <= -charge.amount) IS NOT TRUE THEN
        RAISE EXCEPTION 'a refund gives one charge of its account back, at most in full'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER tokens_transaction_refund_fits BEFORE INSERT ON tokens_transaction
FOR EACH ROW WHEN (NEW.kind = 'REFUND') EXECUTE FUNCTION tokens_refund_fits();
