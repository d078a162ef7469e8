DROP TRIGGER IF EXISTS tokens_transaction_no_update;

DROP TRIGGER IF EXISTS tokens_transaction_no_delete;

DROP TRIGGER IF EXISTS tokens_transaction_no_replace;

DROP TRIGGER IF EXISTS tokens_transaction_refund_fits;
