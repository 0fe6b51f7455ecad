-- The application's own database as its migrations leave it: the tables anyone here reads, every column of theirs we
-- know, and its indexes and no others, so that a query which is slow there is slow here.
-- `timestamp` has no time zone and means UTC. Ids are random: none is monotonic. TypeORM names are camelCase, so quoted.

CREATE TYPE product_source_type_enum AS ENUM ('custom', 'kinguin');
CREATE TYPE payments_status_enum AS ENUM ('created', 'waiting', 'confirmed', 'finished', 'underpaid', 'failed');
CREATE TYPE email_bounces_type_enum AS ENUM ('hard', 'soft', 'complaint');
CREATE TYPE users_role_enum AS ENUM ('user', 'admin');

CREATE TABLE orders (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email varchar(320) NOT NULL,
    "userId" uuid,
    status varchar(20) NOT NULL DEFAULT 'created',
    "sourceType" product_source_type_enum NOT NULL DEFAULT 'custom',
    "totalCrypto" numeric(20, 8) NOT NULL DEFAULT 0, -- in truth the total in EUR
    "originalTotal" numeric(20, 8),
    "discountAmount" numeric(20, 8),
    "promoCodeId" uuid,
    "kinguinReservationId" varchar(255),
    "completionEmailSent" boolean NOT NULL DEFAULT false,
    "createdAt" timestamp NOT NULL DEFAULT now(),
    "updatedAt" timestamp NOT NULL DEFAULT now()
);
CREATE INDEX "IDX_orders_status_created" ON orders (status, "createdAt");
CREATE INDEX "IDX_orders_user_created" ON orders ("userId", "createdAt");
CREATE INDEX "IDX_orders_source" ON orders ("sourceType");

CREATE TABLE order_items (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "orderId" uuid, -- no index: never walk from an order to its items
    "productId" varchar(100) NOT NULL,
    quantity integer NOT NULL DEFAULT 1,
    "unitPrice" numeric(10, 2) NOT NULL DEFAULT 0,
    "productSourceType" product_source_type_enum NOT NULL DEFAULT 'custom',
    "signedUrl" text,
    "inventoryItemId" uuid,
    "createdAt" timestamp NOT NULL DEFAULT now(),
    "updatedAt" timestamp NOT NULL DEFAULT now()
);

CREATE TABLE payments (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "orderId" uuid NOT NULL,
    "externalId" varchar NOT NULL UNIQUE,
    provider varchar NOT NULL DEFAULT 'nowpayments',
    status payments_status_enum NOT NULL DEFAULT 'created',
    "rawPayload" jsonb,
    "priceAmount" numeric(20, 8),
    "payAmount" numeric(20, 8),
    "priceCurrency" varchar,
    "payCurrency" varchar,
    confirmations integer NOT NULL DEFAULT 0,
    "createdAt" timestamp NOT NULL DEFAULT now(),
    "updatedAt" timestamp NOT NULL DEFAULT now()
);
CREATE INDEX "IDX_payments_status" ON payments (status);
CREATE INDEX "IDX_payments_created" ON payments ("createdAt");
CREATE INDEX "IDX_payments_order" ON payments ("orderId");

CREATE TABLE webhook_logs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "externalId" varchar(255) NOT NULL,
    "webhookType" varchar(50) NOT NULL,
    payload jsonb NOT NULL,
    signature text,
    "signatureValid" boolean NOT NULL DEFAULT false,
    processed boolean NOT NULL DEFAULT false,
    "orderId" uuid,
    "paymentId" varchar(255),
    result jsonb,
    "paymentStatus" varchar(50),
    error text,
    "sourceIp" varchar,
    "attemptCount" integer NOT NULL DEFAULT 1,
    "createdAt" timestamp NOT NULL DEFAULT now(),
    "updatedAt" timestamp NOT NULL DEFAULT now()
);
-- None of these leads with createdAt.
CREATE INDEX "IDX_webhook_logs_type_processed_created" ON webhook_logs ("webhookType", processed, "createdAt");
CREATE INDEX "IDX_webhook_logs_external_type_created" ON webhook_logs ("externalId", "webhookType", "createdAt");
CREATE INDEX "IDX_webhook_logs_order_created" ON webhook_logs ("orderId", "createdAt");
CREATE UNIQUE INDEX "UQ_webhook_logs_external_type_status"
    ON webhook_logs ("externalId", "webhookType", "paymentStatus");

CREATE TABLE keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "orderItemId" uuid NOT NULL,
    "storageRef" text,
    "contentType" varchar,
    "viewedAt" timestamp,
    "downloadCount" integer NOT NULL DEFAULT 0,
    "lastAccessIp" varchar,
    "lastAccessUserAgent" text,
    "createdAt" timestamp NOT NULL DEFAULT now(),
    "updatedAt" timestamp NOT NULL DEFAULT now()
);
CREATE INDEX "IDX_keys_order_item" ON keys ("orderItemId");
CREATE INDEX "IDX_keys_created" ON keys ("createdAt");

CREATE TABLE product_inventory (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "productId" uuid NOT NULL,
    "deliveryType" varchar,
    "itemDataEncrypted" text NOT NULL,
    "encryptionIv" varchar NOT NULL,
    "authTag" varchar NOT NULL,
    status varchar(20) NOT NULL DEFAULT 'available', -- available, reserved, sold, expired, invalid
    "reservedForOrderId" uuid,
    "reservedAt" timestamptz,
    "soldToOrderId" uuid,
    "soldAt" timestamptz,
    "expiresAt" timestamptz,
    "uploadedAt" timestamptz NOT NULL DEFAULT now(),
    supplier varchar,
    cost numeric(10, 2),
    "soldPrice" numeric(10, 2)
);

CREATE TABLE products (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    title varchar NOT NULL,
    "sourceType" product_source_type_enum NOT NULL DEFAULT 'custom',
    "isPublished" boolean NOT NULL DEFAULT false,
    cost numeric(20, 8),
    price numeric(20, 8) NOT NULL DEFAULT 0,
    currency varchar,
    "kinguinId" integer,
    "kinguinProductId" varchar,
    "kinguinOfferId" varchar,
    qty integer,
    "textQty" integer,
    "totalQty" integer,
    "stockAvailable" integer NOT NULL DEFAULT 0,
    "stockReserved" integer NOT NULL DEFAULT 0,
    "stockSold" integer NOT NULL DEFAULT 0,
    "lowStockThreshold" integer,
    "updatedAt" timestamp NOT NULL DEFAULT now()
);

CREATE TABLE feature_flags (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name varchar(100) NOT NULL UNIQUE,
    enabled boolean NOT NULL DEFAULT false,
    description text,
    category varchar(50) NOT NULL DEFAULT 'System',
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now(),
    "updatedById" uuid
);
CREATE INDEX "IDX_feature_flags_category_enabled" ON feature_flags (category, enabled);
INSERT INTO feature_flags (name, enabled, description, category) VALUES
    ('auto_fulfill_enabled', true, 'Fulfil paid orders without a human', 'Fulfillment'),
    ('captcha_enabled', true, 'Ask for a captcha', 'Security'),
    ('custom_products_enabled', true, 'Sell own stock', 'Products'),
    ('email_notifications_enabled', true, 'Send e-mails', 'Notifications'),
    ('fulfillment_enabled', true, 'Deliver keys', 'Fulfillment'),
    ('kinguin_enabled', true, 'Sell Kinguin offers', 'Products'),
    ('payment_processing_enabled', true, 'Take payments', 'Payments'),
    ('maintenance_mode', false, 'Show the maintenance page', 'System');

CREATE TABLE audit_logs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "adminUserId" uuid NOT NULL,
    action varchar NOT NULL,
    target varchar NOT NULL,
    payload jsonb, -- may hold plaintext product keys
    details text,
    "createdAt" timestamp NOT NULL DEFAULT now()
);
CREATE INDEX "IDX_audit_logs_action_created" ON audit_logs (action, "createdAt");
CREATE INDEX "IDX_audit_logs_target_created" ON audit_logs (target, "createdAt");
CREATE INDEX "IDX_audit_logs_admin_created" ON audit_logs ("adminUserId", "createdAt");

CREATE TABLE email_bounces (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email varchar(255) NOT NULL,
    type email_bounces_type_enum NOT NULL,
    reason text,
    "externalBounceId" varchar,
    "bouncedAt" timestamp NOT NULL,
    "createdAt" timestamp NOT NULL DEFAULT now()
);
CREATE INDEX "IDX_email_bounces_bounced" ON email_bounces ("bouncedAt");
CREATE INDEX "IDX_email_bounces_type_created" ON email_bounces (type, "createdAt");

CREATE TABLE users (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email varchar NOT NULL UNIQUE,
    role users_role_enum NOT NULL DEFAULT 'user',
    "emailConfirmed" boolean NOT NULL DEFAULT false,
    "isSuspended" boolean NOT NULL DEFAULT false,
    "suspendedAt" timestamp,
    "suspendedReason" text,
    "lastLoginAt" timestamptz,
    "deletionRequestedAt" timestamptz,
    "deletedAt" timestamp,
    "createdAt" timestamp NOT NULL DEFAULT now(),
    "updatedAt" timestamp NOT NULL DEFAULT now()
);

CREATE TABLE user_sessions (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    "userId" uuid NOT NULL,
    "refreshTokenHash" varchar NOT NULL UNIQUE,
    "deviceInfo" varchar,
    "userAgent" text,
    "ipAddress" varchar,
    "lastActiveAt" timestamptz,
    "expiresAt" timestamptz NOT NULL,
    "isRevoked" boolean NOT NULL DEFAULT false,
    "revokedAt" timestamptz,
    "createdAt" timestamptz NOT NULL DEFAULT now(),
    "updatedAt" timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX "IDX_user_sessions_user_revoked" ON user_sessions ("userId", "isRevoked");
CREATE INDEX "IDX_user_sessions_expires" ON user_sessions ("expiresAt");
