DROP TRIGGER IF EXISTS tokens_transaction_no_change ON tokens_transaction;

DROP TRIGGER IF EXISTS tokens_transaction_no_truncate ON tokens_transaction;

DROP TRIGGER IF EXISTS tokens_transaction_refund_fits ON tokens_transaction;

DROP FUNCTION IF EXISTS tokens_ledger_is_append_only();

DROP FUNCTION IF EXISTS tokens_refund_fits();
