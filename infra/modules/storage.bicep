// Three accounts: the host's own (packages, leases, keys, the chunks of batches), one for what is about patients, and one
// for the folders that all instances share, which can only be mounted with a key: the audit (docs/audit.md), and the
// bundles that are served, with the runs that they come from (the registry swaps them while the app runs).
param token string
param location string
param tags object
param isPrivate bool
param principalId string
param workspaceId string

@description('For how many days a large packet\'s blob may lie after its last change. Longer than DEPLOYR_RETENTION_DAYS; 0 keeps them.')
@minValue(0)
param packetBlobDays int = 0

var accounts = [
  {
    name: 'sthost${token}'
    queues: ['deployr-chunks', 'deployr-chunks-poison']
    containers: ['package-blue', 'package-green']
  }
  {
    name: 'stcare${token}'
    queues: ['deployr-spool']
    containers: ['packets', 'facts', 'deployr-spool']
  }
]

resource stores 'Microsoft.Storage/storageAccounts@2023-05-01' = [
  for account in accounts: {
    name: account.name
    location: location
    tags: tags
    kind: 'StorageV2'
    sku: { name: isPrivate ? 'Standard_ZRS' : 'Standard_LRS' }
    properties: {
      allowSharedKeyAccess: false
      allowBlobPublicAccess: false
      allowCrossTenantReplication: false
      defaultToOAuthAuthentication: true
      minimumTlsVersion: 'TLS1_2'
      supportsHttpsTrafficOnly: true
      publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
      networkAcls: { defaultAction: isPrivate ? 'Deny' : 'Allow', bypass: 'None' }
      encryption: {
        requireInfrastructureEncryption: true
        keySource: 'Microsoft.Storage'
        services: { blob: { enabled: true }, queue: { enabled: true, keyType: 'Account' } }
      }
    }
  }
]

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = [
  for (account, place) in accounts: {
    name: 'default'
    parent: stores[place]
    properties: {
      // What is erased on a patient's demand is gone for good after this many days, and not before.
      deleteRetentionPolicy: { enabled: true, days: 7 }
      containerDeleteRetentionPolicy: { enabled: true, days: 7 }
    }
  }
]

resource queues 'Microsoft.Storage/storageAccounts/queueServices@2023-05-01' = [
  for (account, place) in accounts: {
    name: 'default'
    parent: stores[place]
  }
]

resource hostContainers 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = [
  for name in accounts[0].containers: {
    name: name
    parent: blobs[0]
    properties: { publicAccess: 'None' }
  }
]

resource patientContainers 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = [
  for name in accounts[1].containers: {
    name: name
    parent: blobs[1]
    properties: { publicAccess: 'None' }
  }
]

resource hostQueues 'Microsoft.Storage/storageAccounts/queueServices/queues@2023-05-01' = [
  for name in accounts[0].queues: {
    name: name
    parent: queues[0]
  }
]

resource patientQueues 'Microsoft.Storage/storageAccounts/queueServices/queues@2023-05-01' = [
  for name in accounts[1].queues: {
    name: name
    parent: queues[1]
  }
]

// A worker that dies between erasing a packet and erasing its blob leaves the blob: docs/store.md.
resource lifecycle 'Microsoft.Storage/storageAccounts/managementPolicies@2023-05-01' = if (packetBlobDays > 0) {
  name: 'default'
  parent: stores[1]
  properties: {
    policy: {
      rules: [
        {
          name: 'packets-end'
          type: 'Lifecycle'
          enabled: true
          definition: {
            filters: { blobTypes: ['blockBlob'], prefixMatch: ['packets/'] }
            actions: { baseBlob: { delete: { daysAfterModificationGreaterThan: packetBlobDays } } }
          }
        }
      ]
    }
  }
}

var blobDataOwner = 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b'
var blobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var queueDataContributor = '974c5e8b-45b9-4653-ba55-5f855dd0fb88'
var tableDataContributor = '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3'

// The host keeps leases and keys in its account's blobs and asks for ownership of them, and writes diagnostics to tables.
resource hostRoles 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in [blobDataOwner, queueDataContributor, tableDataContributor]: {
    name: guid(stores[0].id, principalId, role)
    scope: stores[0]
    properties: {
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
      principalId: principalId
      principalType: 'ServicePrincipal'
    }
  }
]

resource patientRoles 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for role in [blobDataContributor, queueDataContributor]: {
    name: guid(stores[1].id, principalId, role)
    scope: stores[1]
    properties: {
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', role)
      principalId: principalId
      principalType: 'ServicePrincipal'
    }
  }
]

resource blobLogs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = [
  for (account, place) in accounts: {
    name: 'to-workspace'
    scope: blobs[place]
    properties: {
      workspaceId: workspaceId
      logs: [
        { category: 'StorageRead', enabled: true }
        { category: 'StorageWrite', enabled: true }
        { category: 'StorageDelete', enabled: true }
      ]
      metrics: [{ category: 'Transaction', enabled: true }]
    }
  }
]

resource folders 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: 'stfolders${token}'
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: isPrivate ? 'Standard_ZRS' : 'Standard_LRS' }
  properties: {
    // Azure Files knows no identity when a function app mounts it. Nothing else is in this account.
    allowSharedKeyAccess: true
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: { defaultAction: isPrivate ? 'Deny' : 'Allow', bypass: 'None' }
  }

  resource files 'fileServices' = {
    name: 'default'
    properties: {
      shareDeleteRetentionPolicy: { enabled: true, days: 30 }
      protocolSettings: { smb: { versions: 'SMB3.1.1;', channelEncryption: 'AES-128-GCM;AES-256-GCM;' } }
    }

    resource audit 'shares' = {
      name: 'audit'
      properties: { enabledProtocols: 'SMB', shareQuota: 100 }
    }

    resource models 'shares' = {
      name: 'models'
      properties: { enabledProtocols: 'SMB', shareQuota: 100 }
    }
  }
}

output foldersStorageId string = folders.id
output foldersStorageName string = folders.name
output auditShare string = folders::files::audit.name
output modelsShare string = folders::files::models.name
output hostStorageId string = stores[0].id
output hostStorageName string = stores[0].name
output packageContainers array = accounts[0].containers
output patientStorageId string = stores[1].id
output patientBlobs string = 'https://${stores[1].name}.blob.${environment().suffixes.storage}'
output patientQueues string = 'https://${stores[1].name}.queue.${environment().suffixes.storage}'
