/* PostgreSQL's side. PostgreSQL raises errors by siglongjmp. This file catches them below Rust, and
 * raises them again after Rust has returned. */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#include "shim.h"

PG_MODULE_MAGIC;

/* ---- for Rust ---- */

static void keep(const ErrorData *error, reply *reply) {
    reply->sqlstate = error->sqlerrcode;
    strlcpy(reply->message, error->message, sizeof reply->message);
}

bool pg_query_raising(const char *sql, reply *reply) {
    SPI_connect();
    int result = SPI_execute(sql, false, 1);
    if (result < 0)
        elog(ERROR, "%s", SPI_result_code_string(result));
    char *text = SPI_processed && SPI_tuptable ? SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1) : NULL;
    reply->value = text ? strtoll(text, NULL, 10) : 0;
    SPI_finish();
    return true;
}

/* Runs a query in a subtransaction. PostgreSQL requires one for continuing after an error. */
bool pg_query(const char *sql, reply *reply) {
    MemoryContext context = CurrentMemoryContext;
    ResourceOwner owner = CurrentResourceOwner;
    volatile bool done = false;
    BeginInternalSubTransaction(NULL);
    MemoryContextSwitchTo(context);
    PG_TRY();
    {
        done = pg_query_raising(sql, reply);
        ReleaseCurrentSubTransaction();
    }
    PG_CATCH();
    {
        done = false;
        MemoryContextSwitchTo(context);
        ErrorData *error = CopyErrorData();
        FlushErrorState();
        RollbackAndReleaseCurrentSubTransaction();
        keep(error, reply);
        FreeErrorData(error);
    }
    PG_END_TRY();
    MemoryContextSwitchTo(context);
    CurrentResourceOwner = owner;
    return done;
}

bool pg_wait(int fd, reply *reply) {
    MemoryContext context = CurrentMemoryContext;
    volatile bool goes_on = true;
    PG_TRY();
    {
        WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_EXIT_ON_PM_DEATH, fd, -1, PG_WAIT_EXTENSION);
        ResetLatch(MyLatch);
        CHECK_FOR_INTERRUPTS();
    }
    PG_CATCH();
    {
        goes_on = false;
        MemoryContextSwitchTo(context);
        ErrorData *error = CopyErrorData();
        FlushErrorState();
        keep(error, reply); /* raised again after Rust has returned */
        FreeErrorData(error);
    }
    PG_END_TRY();
    return goes_on;
}

bool pg_stack_is_too_deep(void) { return stack_is_too_deep(); }

/* ---- for SQL ---- */

static void raise_error(const reply *reply) {
    ereport(ERROR, (errcode(reply->sqlstate ? reply->sqlstate : ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
                    errmsg("%s", reply->message)));
}

/* Defines an SQL function: it makes `call` and returns `result`. */
#define SQL_FUNCTION(name, call, result)      \
    PG_FUNCTION_INFO_V1(name);                \
    Datum name(PG_FUNCTION_ARGS) {            \
        reply reply = {.value = 0};           \
        if (!(call))                          \
            raise_error(&reply);                    \
        result;                               \
    }

#define TEXT(n) text_to_cstring(PG_GETARG_TEXT_PP(n))
#define NUMBER PG_RETURN_INT64(reply.value)

SQL_FUNCTION(rust_query, host_query(&reply, TEXT(0)), NUMBER)
SQL_FUNCTION(rust_try, host_try(&reply, TEXT(0)), PG_RETURN_TEXT_P(cstring_to_text(reply.message)))
SQL_FUNCTION(rust_leave, host_leave(&reply, TEXT(0)), NUMBER)
SQL_FUNCTION(rust_panic, host_panic(&reply, TEXT(0)), NUMBER)
SQL_FUNCTION(rust_nest, host_nest(&reply, PG_GETARG_INT32(0)), NUMBER)
SQL_FUNCTION(rust_wait, host_wait(&reply, PG_GETARG_INT32(0)), NUMBER)
SQL_FUNCTION(rust_wait_interruptibly, host_wait_interruptibly(&reply, PG_GETARG_INT32(0)), NUMBER)
SQL_FUNCTION(rust_worker, host_worker(&reply), NUMBER)
SQL_FUNCTION(rust_check_stack, host_check_stack(&reply, PG_GETARG_INT32(0)), NUMBER)
SQL_FUNCTION(rust_state, host_state(&reply, PG_GETARG_INT32(0)), NUMBER)

void _PG_init(void);

/* Runs in the postmaster if shared_preload_libraries names this library. The backends are forked
 * from there. */
void _PG_init(void) {
    reply reply = {.value = 0};
    if (!host_load(&reply))
        raise_error(&reply);
}
