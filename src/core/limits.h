/* Every bound on what comes from outside, with its unit and reason. Published in /v1/meta where
 * a client needs it. */
#ifndef CORE_LIMITS_H
#define CORE_LIMITS_H

#define JSON_DEPTH_MAX 32             /* nesting; no message needs more than 8 */
#define JSON_NODES_MAX 4000000        /* nodes of one message; 16 MiB of "1," is 8M */
#define PUSH_OPS_MAX 10000            /* operations of one push */
#define PUSH_BYTES_MAX (16u << 20)    /* body of one push, after decompression */
#define PUSH_FILL_OPS 500             /* what a client fills a push with, whole groups */
#define PUSH_FILL_BYTES (1u << 20)
#define GROUP_OPS_MAX 10000           /* operations of one group; larger local transactions split */
#define GROUP_SPLIT_OPS 1000          /* ... into groups of this many */
#define GROUP_BYTES_MAX (16u << 20)
#define ROW_BYTES_MAX (1u << 20)      /* payload of one operation */
#define PAGE_COMMITS_MAX 500          /* commits of one page of the feed */
#define PAGE_BYTES_MAX (1u << 20)     /* bytes of one page after which it ends at a whole commit */
#define PAGES_KEPT_MAX 32             /* pages of the feed kept for others, of all scopes ... */
#define PAGES_KEPT_BYTES (8u << 20)   /* ... and their bytes */
#define PAGE_AUTHORS_MAX 512          /* devices with a part in a page that is kept */
#define SNAPSHOT_ROWS_MAX 5000        /* rows of one snapshot page */
#define ANSWER_BYTES_MAX (64u << 20)  /* answer a client accepts: one group alone may be large */
#define WAIT_S_MAX 25                 /* long poll */
#define SCOPES_MAX 64                 /* scopes of one token or device */
#define SCOPES_SQL_MS 1000            /* the operator's query for a token's scopes */
#define TABLES_MAX 500                /* tables of one declaration */
#define COLUMNS_MAX 252               /* synced columns of one table: four masks of 63 bits */
#define KEY_COLUMNS_MAX 16            /* columns of one primary key */
#define NAME_BYTES_MAX 128            /* table, column, scope, label, user id */
#define ENTITY_ID_BYTES_MAX 1024      /* text form of a primary key */
#define DEVICE_ID_BYTES_MAX 64
#define IDEM_KEY_BYTES_MAX 255        /* opaque key of a caller without a stream */
#define DEPENDS_MAX 1000              /* dependencies of one operation */
#define RESOLVES_MAX 256              /* conflicts one operation decides: one per column, and more */
#define CLOCK_ENTRIES_MAX 16          /* explicit entries of a row's vector clock (floor aside) */
#define CLOCK_PARSE_ENTRIES_MAX 1024  /* entries accepted when a clock is parsed */
#define SET_ELEMENTS_MAX 1000        /* elements of one set column: each is compared with each */
#define TOKEN_BYTES_MAX 8192
#define ROLES_MAX 16                  /* database roles that tokens may name */
#define CURSOR_BYTES_MAX 512
#define HTTP_HEAD_BYTES_MAX 16384
#define HTTP_HEADERS_MAX 64
#define HTTP_TARGET_BYTES_MAX 8192    /* path and query; a cursor is 512 */
#define HTTP_CONNECTIONS_MAX 10000    /* of one server; less when RLIMIT_NOFILE is lower */
#define HTTP_HEAD_MS 10000            /* a head must be complete after its first byte */
#define HTTP_IDLE_MS 75000            /* kept-alive connection without a request */
#define HTTP_PROGRESS_MS 10000        /* within which a body or an answer must move on by ... */
#define HTTP_PROGRESS_BYTES 1024
#define HTTP_LINGER_MS 2000           /* reading on after a refusal, so that the answer arrives */
#define HTTP_DRAIN_MS 15000           /* graceful stop, then connections are cut */
#define SSE_KEEPALIVE_MS 15000        /* comment line, below the idle limit of proxies */
#define SSE_LIFE_MS 300000            /* then it is opened again: rights may have changed */
#define SERVER_QUEUE_MAX 4096         /* requests waiting for a stage */
#define MEMORY_USUAL_MIB 512          /* requests and answers in memory, half of it for requests */
#define SERVER_BATCH_MAX 1024         /* requests combined into one write */
#define IDENTITIES_MAX 64             /* identities of one replica named in one request */
#define RECONCILE_KEYS_MAX 5000       /* keys of one page of a reconciliation: about 400 KiB */
#define POISON_LIMIT 5                /* protocol failures of one group alone before quarantine */
#define HOOK_TEXT_MAX (8u << 20)      /* one question to a hook, or its answer */
#define HOOK_LIST_MAX (16u << 20)     /* questions about the conflicts of one push */
#define HOOK_ROUNDS 3                 /* a push is decided, asked for, and decided again */
#define HOOK_FAILURES_MAX 10          /* of hooks in one push, before they are not asked any more */
#define HOOK_SLICE_MS 50              /* of asking, before the next push has a turn */
#define HOOK_QUEUE_MAX 1024           /* pushes that wait for hooks */
#define HOOK_WORKERS 2                /* processes that run hooks */
#define HOOK_START_MS 10000           /* one of them must be ready by then */
#define BACKOFF_BASE_MS 1000
#define BACKOFF_CAP_MS 300000
#define TOKEN_LEEWAY_S 60

#endif
