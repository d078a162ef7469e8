-- Statements are separated by an empty line; tokens/triggers.py runs them. The ledger is append-only.
CREATE TRIGGER IF NOT EXISTS tokens_transaction_no_update BEFORE UPDATE ON tokens_transaction
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: UPDATE refused');
END;

CREATE TRIGGER IF NOT EXISTS tokens_transaction_no_delete BEFORE DELETE ON tokens_transaction
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only: DELETE refused');
END;

-- INSERT OR REPLACE deletes the row in its way, and fires delete triggers only under PRAGMA recursive_triggers=ON. A
-- client without it must not rewrite history either, so each unique rule is asked before the row comes in.
CREATE TRIGGER IF NOT EXISTS tokens_transaction_no_replace BEFORE INSERT ON tokens_transaction
WHEN EXISTS (SELECT 1 FROM tokens_transaction WHERE id = NEW.id)
    OR EXISTS (SELECT 1 FROM tokens_transaction WHERE reverses_id = NEW.reverses_id)
    OR EXISTS (
        SELECT 1 FROM tokens_transaction
        WHERE idempotency_key IS NOT NULL AND account_id = NEW.account_id AND idempotency_key = NEW.idempotency_key
    )
    OR (NEW.kind = 'CHARGE' AND EXISTS (
        SELECT 1 FROM tokens_transaction WHERE kind = 'CHARGE' AND reference = NEW.reference
    ))
    OR (NEW.kind IN ('GRANT', 'PURCHASE') AND NEW.reference <> '' AND EXISTS (
        SELECT 1 FROM tokens_transaction
        WHERE kind IN ('GRANT', 'PURCHASE') AND NOT reference = '' AND kind = NEW.kind AND reference = NEW.reference
    ))
BEGIN
    SELECT RAISE(ABORT, 'the ledger holds this booking already');
END;

CREATE TRIGGER IF NOT EXISTS tokens_transaction_refund_fits BEFORE INSERT ON tokens_transaction
WHEN NEW.kind = 'REFUND' AND NOT EXISTS (
    SELECT 1 FROM tokens_transaction AS charge
    WHERE charge.id = NEW.reverses_id AND charge.kind = 'CHARGE'
        AND charge.account_id = NEW.account_id AND NEW.amount <= -charge.amount
)
BEGIN
    SELECT RAISE(ABORT, 'a refund gives one charge of its account back, at most in full');
END;
